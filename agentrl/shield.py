"""Clean-up that neither a cancellation nor a failing plugin can cut short."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from agentrl.errors import RolloutError, boundary
from agentrl.waits import within

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


async def quietly(
    work: Callable[[], Awaitable[None]], what: str, waiter: str, timeout_s: float
) -> None:
    """Await clean-up of a plugin; its failure is logged and spoils nothing else."""
    try:
        with boundary(what):
            remedy = "look at what its clean-up waits for; it is given up then"
            await within(work(), what, waiter, remedy=remedy, deadline_s=timeout_s)
    except RolloutError as error:
        logger.warning("%s", error)


async def to_its_end(work: "asyncio.Future[T]", *, deadline_s: float | None = None) -> T:
    """Wait for work that must not be cut off, and return its result.

    A cancellation meanwhile takes effect at the caller's next await: whoever changes the weights
    gets to record that they have changed.

    Raises:
        TimeoutError: it did not end within `deadline_s`; it goes on.
    """
    cancelled, ends = False, None if deadline_s is None else time.monotonic() + deadline_s
    while not work.done():
        left_s = None if ends is None else ends - time.monotonic()
        if left_s is not None and left_s <= 0:
            raise TimeoutError(f"not done after {deadline_s:g} s")
        try:
            # Unlike awaiting it, `wait` neither cancels the work nor raises its error here.
            await asyncio.wait([work], timeout=left_s)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled and (task := asyncio.current_task()) is not None:
        task.cancel()
    return work.result()


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all at once; the first to fail cancels the others, and is what is raised."""
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(part) for part in work]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed.exceptions[0].__cause__
    return [task.result() for task in running]
