"""Requests under way that can be ended from outside, to begin anew somewhere else."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class InFlight:
    """What one server, or one engine's process, is working on."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    async def run(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Await `work`; None if `end` was called before it was done."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        try:
            await asyncio.wait([task])
            return None if task.cancelled() else task.result()
        finally:
            task.cancel()
            self._tasks.discard(task)

    def end(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()

    async def settle(self) -> None:
        """Wait until all that are under way now are done."""
        if self._tasks:
            await asyncio.wait(list(self._tasks))
