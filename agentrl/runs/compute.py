"""Training steps off the event loop.

A step takes seconds; on the event loop it would stall the sandbox's health checks and everything
else that is alive. One worker thread runs all steps, so that OpenMP keeps one pool of threads.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Compute:
    """One thread for work that must run to its end."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trainer")

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` to its end and return its result.

        A cancellation meanwhile takes effect at the caller's next await: whoever changes the
        weights gets to record that they have changed.
        """
        future = asyncio.get_running_loop().run_in_executor(self._worker, work)
        cancelled = False
        while not future.done():
            try:
                # Unlike awaiting it, `wait` neither cancels the work nor raises its error here.
                await asyncio.wait([future])
            except asyncio.CancelledError:
                cancelled = True
        if cancelled and (task := asyncio.current_task()) is not None:
            task.cancel()
        return future.result()

    def close(self) -> None:
        """End the thread."""
        self._worker.shutdown()
