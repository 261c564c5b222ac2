"""Clean-up that neither a cancellation nor a failing plugin can cut short."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from agentrl.errors import RolloutError, boundary

logger = logging.getLogger(__name__)
T = TypeVar("T")


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
            async with asyncio.timeout(timeout_s):
                await work()
    except RolloutError as error:
        logger.warning("%s", error)


async def to_its_end(work: "asyncio.Future[T]") -> T:
    """Wait for work that must not be cut off, and return its result.

    A cancellation meanwhile takes effect at the caller's next await: whoever changes the weights
    gets to record that they have changed.
    """
    cancelled = False
    while not work.done():
        try:
            # Unlike awaiting it, `wait` neither cancels the work nor raises its error here.
            await asyncio.wait([work])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled and (task := asyncio.current_task()) is not None:
        task.cancel()
    return work.result()
