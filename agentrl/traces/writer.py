"""Recording while the run goes on: a queue, a task that empties it, and a thread that writes.

    record -> bounded queue -> one at a time, in order: JSON, gzip, append -> traces/*.jsonl.gz

`record` waits where the disk is slower than the rollouts. What it has accepted is written,
whoever is cancelled; a disk that fails stops the run with the next call.
"""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from types import TracebackType
from typing import Self

from agentrl.aside import call
from agentrl.contracts.trajectory import Group
from agentrl.errors import NotReadyError, RolloutError, RunError, boundary
from agentrl.shield import shielded
from agentrl.traces.record import Fate as Fate
from agentrl.traces.record import Split, Trace
from agentrl.traces.store import append_trace, cut_torn
from agentrl.waits import DeadlineError, within

FILES = {"train": "train.jsonl.gz", "eval": "eval.jsonl.gz"}
_WAITING = 32
DEADLINE_S = 900.0
"""Of a place in the queue, and of everything accepted being written."""
_REMEDY = "look at the disk: it may be full, remote and gone, or overloaded"


class TraceWriter:
    """Writes the traces of one run into `folder`."""

    def __init__(self, folder: Path, *, deadline_s: float = DEADLINE_S) -> None:
        self._folder = folder
        self._deadline_s = deadline_s
        self._queue: asyncio.Queue[Trace] = asyncio.Queue(_WAITING)
        self._sizes = dict.fromkeys(FILES.values(), 0)
        self._failure: RolloutError | DeadlineError | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Cut off what a crash tore, and begin.

        Raises:
            ConfigError: there are files that hold no traces.
            NotReadyError: the folder cannot be written.
        """
        try:
            for name in self._sizes:
                self._sizes[name] = await call(cut_torn, self._folder / name)
        except OSError as error:
            raise NotReadyError(f"traces folder {self._folder}: {error}") from error
        self._task = asyncio.create_task(self._write(), name="traces")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what was accepted, and end.

        Raises:
            RunError: it could not be written.
        """
        try:
            if not isinstance(self._failure, DeadlineError):  # else it was waited for already
                await shielded(self._within(self._queue.join(), "the run's end"))
        finally:
            if self._task is not None:
                self._task.cancel()
        if error is None:
            self._check()

    async def record(self, group: Group, *, step: int, split: Split, fate: Fate) -> None:
        """Accept a group; wait while the queue is full.

        Raises:
            RunError: an earlier group could not be written.
        """
        self._check()
        trace = Trace(step=step, split=split, fate=fate, group=group)
        await self._within(self._queue.put(trace), f"group {group.id}")

    async def flush(self) -> None:
        """Wait until everything accepted is written.

        Raises:
            RunError: something could not be written.
        """
        await self._within(self._queue.join(), "the next step")
        self._check()

    def sizes(self) -> dict[str, int]:
        """Return each file's length in bytes, up to its last whole record."""
        return dict(self._sizes)

    async def _within(self, work: Awaitable[None], waiter: str) -> None:
        """Wait for the disk.

        Raises:
            RunError: it took longer than the deadline.
        """
        try:
            await within(
                work,
                f"disk: traces in {self._folder}",
                waiter,
                remedy=_REMEDY,
                deadline_s=self._deadline_s,
            )
        except DeadlineError as error:
            self._failure = error
            raise RunError(str(error)) from error

    async def _write(self) -> None:
        while True:
            trace = await self._queue.get()
            name = FILES[trace.split]
            try:
                if self._failure is None:  # else it is lost: the run stops
                    with boundary(f"traces file {self._folder / name}"):
                        written = call(append_trace, self._folder / name, trace)
                        self._sizes[name] = await written
            except RolloutError as error:
                self._failure = error
            finally:
                self._queue.task_done()

    def _check(self) -> None:
        if self._failure is not None:
            raise RunError(
                f"{self._failure}; what was recorded before is whole. Free the disk, then resume"
            ) from self._failure
