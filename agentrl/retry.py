"""Infrastructure errors are tried again: a plugin's backend may be back a moment later.

For tools and scorers, of which thousands run at once: where the first attempt succeeds, nothing is
built and nothing waits. Requests over a network have more rules, and `clients.retry`.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from agentrl.errors import InfraError

T = TypeVar("T")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


async def retried(work: Callable[[], Awaitable[T]], *, retries: int) -> tuple[T, int]:
    """Return what the first attempt that succeeds returns, and its number, from 1.

    Pauses are random, up to a bound that doubles each time: who failed together comes back apart.

    Raises:
        InfraError: the last of `1 + retries` attempts failed as the others did.
    """
    pause_s = _FIRST_PAUSE_S
    for attempt in range(1, 1 + retries):
        with suppress(InfraError):
            return await work(), attempt
        await asyncio.sleep(random.uniform(0, pause_s))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    return await work(), 1 + retries
