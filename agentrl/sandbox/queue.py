"""A bounded waiting line that is fair between owners.

Each owner (an episode) has a line of its own; lines are served in turn, so an episode that asks
for a hundred executions at once delays another's single one by one place, not by a hundred.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

from agentrl.errors import SandboxError

T = TypeVar("T")


class QueueFullError(SandboxError):
    """More requests wait than the configuration allows."""


class FairQueue(Generic[T]):
    """Hands items (free slots) to waiters, round robin over their owners."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free: deque[T] = deque()
        self._lines: OrderedDict[str, deque[asyncio.Future[T]]] = OrderedDict()
        self.waiting = 0

    @property
    def free(self) -> int:
        """The number of items nobody waits for."""
        return len(self._free)

    async def take(self, owner: str) -> T:
        """Return an item, waiting for one in the owner's line.

        Raises:
            QueueFullError: the waiting line is at its limit.
        """
        if self._free:
            return self._free.popleft()
        if self.waiting >= self._limit:
            raise QueueFullError(
                f"sandbox queue is full: {self.waiting} requests wait, at most {self._limit} may "
                "(sandbox.max_queue); run fewer episodes at once or add sandbox.workers"
            )
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(owner, deque()).append(future)
        self.waiting += 1
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                # The item was handed over in the instant of the cancellation: pass it on.
                self.give(future.result())
            raise
        finally:
            self.waiting -= 1

    def give(self, item: T) -> None:
        """Hand an item to the next waiter in turn, or keep it."""
        while self._lines:
            owner, line = self._lines.popitem(last=False)
            future = line.popleft()
            if line:
                self._lines[owner] = line
            if not future.done():
                future.set_result(item)
                return
        self._free.append(item)

    def discard_where(self, unwanted: Callable[[T], bool]) -> None:
        """Forget free items that have become useless."""
        self._free = deque(item for item in self._free if not unwanted(item))

    def fail(self, error: Exception) -> None:
        """Let every waiter fail with `error`."""
        lines, self._lines = self._lines, OrderedDict()
        for future in (future for line in lines.values() for future in line):
            if not future.done():
                future.set_exception(error)
