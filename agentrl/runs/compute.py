"""Training steps off the event loop.

A step takes seconds; on the event loop it would stall the sandbox's health checks and everything
else that is alive. One worker thread runs all steps, so that OpenMP keeps one pool of threads.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from agentrl.shield import to_its_end

T = TypeVar("T")


class Compute:
    """One thread for work that must run to its end."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trainer")

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` to its end, whoever is cancelled meanwhile, and return its result."""
        loop = asyncio.get_running_loop()
        return await to_its_end(loop.run_in_executor(self._worker, work))

    def close(self) -> None:
        """End the thread."""
        self._worker.shutdown()
