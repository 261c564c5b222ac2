"""Waits with names: who waits for what, how long already, when it ends by itself, and the remedy.

Whatever awaits something that can be long does so inside `waiting`; what has no deadline of its
own is awaited by `bounded`. The registry is one for the process and can be read from any thread,
also while the event loop is blocked: that is how `agentrl.watch` tells what a silent run waits for.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from agentrl.errors import InfraError

logger = logging.getLogger(__name__)

T = TypeVar("T")

CLEAN_UP_S = 10.0
"""For what a cancelled piece of work does last."""

_OPEN: dict[int, "Wait"] = {}
"""Setting, deleting and listing are one operation each of the interpreter's: no lock is needed."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class Wait:
    """One wait; it is in the registry while its `with` block runs.

    Attributes:
        resource: what is waited for (`engine vllm: generate`, `tool 'search': execute`).
        waiter: who waits, its kind first (`episode step3-1-0`, `step 12`).
        remedy: what a person can do about it.
        deadline_s: seconds after which it ends by itself; None where that is not known.
        began: its start on the monotonic clock, in seconds; set on entering, if not before.
        task: what waits, where that is a task of an event loop.
    """

    resource: str
    waiter: str
    remedy: str
    deadline_s: float | None = None
    began: float = 0.0
    task: "asyncio.Future[Any] | None" = field(default=None, repr=False)
    told_s: float = 0.0
    """The age at which it was told last; the watch's business."""

    @property
    def age_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    def __enter__(self) -> None:
        """Begin to wait."""
        self.began = self.began or time.monotonic()
        self.task = _current_task()
        _OPEN[id(self)] = self

    def __exit__(self, *exception: object) -> None:
        """Have what was waited for, or give up."""
        self.task = None
        del _OPEN[id(self)]


def waiting(
    resource: str,
    waiter: str,
    *,
    remedy: str,
    deadline_s: float | None = None,
    since: float | None = None,
) -> Wait:
    """Register a wait while the body of a `with` statement runs; it ends nothing by itself.

    `since` is when the waiter began to wait, for this or for something before it; now by default.
    """
    return Wait(resource, waiter, remedy, deadline_s, since or 0.0)


class DeadlineError(TimeoutError):
    """A wait passed its own deadline."""


async def within(
    work: Awaitable[T], resource: str, waiter: str, *, remedy: str, deadline_s: float
) -> T:
    """Await `work` as a named wait that ends at its deadline.

    It runs as a task of its own: what swallows its cancellation is left behind.

    Raises:
        DeadlineError: it did not end within `deadline_s` seconds, or came later than that because
            it held the event loop, where no time-out could reach it.
    """
    wait = waiting(resource, waiter, remedy=remedy, deadline_s=deadline_s)
    with wait:
        wait.task = task = asyncio.ensure_future(work)
        try:
            finished, _ = await asyncio.wait([task], timeout=deadline_s)
        except asyncio.CancelledError:
            await _give_up(task, wait)
            raise
        passed = not finished or wait.age_s > deadline_s
        if not finished:
            await _give_up(task, wait)
    if passed and (not finished or (not task.cancelled() and task.exception() is None)):
        raise DeadlineError(_passed(wait))
    return task.result()


async def bounded(
    work: Awaitable[T], resource: str, waiter: str, *, remedy: str, deadline_s: float
) -> T:
    """Await `work` as `within` does, where it is a backend's fault when it does not end.

    Raises:
        InfraError: it passed its deadline.
    """
    try:
        return await within(work, resource, waiter, remedy=remedy, deadline_s=deadline_s)
    except DeadlineError as error:
        raise InfraError(str(error)) from error


def open_waits() -> list[Wait]:
    """Return the waits under way, the oldest first."""
    return sorted(_OPEN.values(), key=lambda wait: wait.began)


def _current_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:  # outside of an event loop: a thread waits
        return None


async def _give_up(task: "asyncio.Future[Any]", wait: Wait) -> None:
    """Cancel a task and see to its clean-up, for so long as is decent."""
    task.cancel()
    await asyncio.wait([task], timeout=CLEAN_UP_S)
    if not task.done():
        logger.warning(
            "%s of %s goes on after its cancellation, and is left behind: let it pass "
            "asyncio.CancelledError on",
            wait.resource,
            wait.waiter,
        )
        asyncio.tasks._unregister_task(cast("asyncio.Task[Any]", task))  # else the end hangs
    elif not task.cancelled():
        task.exception()  # its failure is nobody's any more


def _passed(wait: Wait) -> str:
    return (
        f"{wait.resource}: {wait.waiter} waited for {wait.age_s:.3g} s, longer than its deadline "
        f"of {wait.deadline_s:g} s; {wait.remedy}"
    )
