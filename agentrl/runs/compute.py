"""Training steps off the event loop.

A step takes seconds; on the event loop it would stall the sandbox's health checks and everything
else that is alive. One worker thread runs all steps, so that OpenMP keeps one pool of threads. It
is a daemon: a disk that never answers holds up neither the run's end nor the program's.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from agentrl.shield import to_its_end

T = TypeVar("T")

_Job = tuple[Callable[[], Any], "Future[Any]"]


class Compute:
    """One thread for work that must run to its end."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stuck = False

    async def run(self, work: Callable[[], T], *, deadline_s: float | None = None) -> T:
        """Run `work` to its end, whoever is cancelled meanwhile, and return its result.

        Raises:
            TimeoutError: it did not end within `deadline_s`; it goes on, and nothing more can run.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="trainer", daemon=True)
            self._thread.start()
        job: Future[T] = Future()
        job.set_running_or_notify_cancel()
        self._jobs.put((work, job))
        future = asyncio.wrap_future(job)
        try:
            return await to_its_end(future, deadline_s=deadline_s)
        finally:
            self._stuck = not future.done()

    def close(self) -> None:
        """End the thread, unless it is stuck in work that passed its deadline."""
        self._jobs.put(None)
        if self._thread is not None and not self._stuck:
            self._thread.join()

    def _work(self) -> None:
        while (entry := self._jobs.get()) is not None:
            work, job = entry
            try:
                result = work()
            except BaseException as error:  # raised again where it is awaited
                job.set_exception(error)
            else:
                job.set_result(result)
            del work, job, entry
