"""Clean-up that neither a cancellation nor a failing plugin can cut short."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from agentrl.errors import RolloutError, boundary
from agentrl.waits import within

logger = logging.getLogger(__name__)


async def shielded(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end even if the caller is cancelled meanwhile, once or several times.

    Raises:
        asyncio.CancelledError: after `work` has ended, when the caller was cancelled.
    """
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    task.result()


async def quietly(work: Callable[[], Awaitable[None]], what: str, timeout_s: float) -> None:
    """Await clean-up of a plugin; its failure is logged and spoils nothing else."""
    try:
        with boundary(what):
            remedy = "look at what its clean-up waits for; it is given up then"
            await within(work(), what, "clean-up", remedy=remedy, deadline_s=timeout_s)
    except RolloutError as error:
        logger.warning("%s", error)
