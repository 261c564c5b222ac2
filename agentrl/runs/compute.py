"""Training steps off the event loop.

A step takes seconds; on the event loop it would stall the sandbox's health checks and everything
else that is alive. One worker thread runs all steps, so that OpenMP keeps one pool of threads. It
is a daemon: a disk that never answers holds up neither the run's end nor the program's.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_Job = tuple[Callable[[], Any], "Future[Any]"]


class Compute:
    """One thread for work that must run to its end."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stuck = False

    async def run(self, work: Callable[[], T], *, deadline_s: float | None = None) -> T:
        """Run `work` to its end and return its result.

        A cancellation meanwhile takes effect at the caller's next await: whoever changes the
        weights gets to record that they have changed.

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
        cancelled, ends = False, None if deadline_s is None else time.monotonic() + deadline_s
        while not future.done():
            left_s = None if ends is None else ends - time.monotonic()
            if left_s is not None and left_s <= 0:
                self._stuck = True
                raise TimeoutError(f"not done after {deadline_s:g} s")
            try:
                # Unlike awaiting it, `wait` neither cancels the work nor raises its error here.
                await asyncio.wait([future], timeout=left_s)
            except asyncio.CancelledError:
                cancelled = True
        if cancelled and (task := asyncio.current_task()) is not None:
            task.cancel()
        return future.result()

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
