"""Infrastructure errors are tried again: a plugin's backend may be back a moment later.

For tools and scorers, of which thousands run at once: where the first attempt succeeds, nothing is
built and nothing waits. Requests over a network have more rules, and `clients.retry`.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from agentrl.errors import InfraError

T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0


async def retried(work: Callable[[], Awaitable[T]], *, retries: int) -> tuple[T, int]:
    """Return what the first attempt that succeeds returns, and its number, from 1.

    Pauses are random, up to a bound that doubles each time: who failed together comes back apart.

    Raises:
        InfraError: the last of `1 + retries` attempts failed as the others did.
    """
    try:
        return await work(), 1
    except InfraError as error:
        first = error
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(InfraError),
        stop=stop_after_attempt(1 + retries),
        wait=wait_random_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S),
        reraise=True,
    ):
        number = attempt.retry_state.attempt_number
        with attempt:
            if number == 1:  # made above, where a success costs nothing
                raise first
            result = await work()
    return result, number
