"""Every group reaches the disk when its fate is known, and every new kind of failure the screen.

Groups of a step are recorded before the step learns from them, so that a step that fails has its
evidence on disk. Should it not come to its end, a checkpoint remembers the records without them.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Literal

from agentrl.contracts.trajectory import Group, Trajectory
from agentrl.runs.folder import RunFolder
from agentrl.runs.reporter import Reporter
from agentrl.traces.writer import Fate, TraceWriter

logger = logging.getLogger(__name__)


class FailureNotes:
    """Tells of the first failure of each kind: on the screen, and with its traceback in the log."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._seen: set[tuple[str, str]] = set()

    def look(self, trajectories: Iterable[Trajectory]) -> None:
        """Tell of what has not been seen yet."""
        for failure in (failure for t in trajectories for failure in t.failures):
            kind = (failure.kind, failure.type)
            if kind in self._seen:
                continue
            self._seen.add(kind)
            self._reporter.note(
                f"first {failure.kind} ({failure.type}): {failure.message} [traceback: log.jsonl]"
            )
            traceback = {"traceback": failure.traceback}
            logger.info("first %s: %s", failure.kind, failure.message, extra=traceback)


class Recorder:
    """Records a run's groups."""

    def __init__(self, traces: TraceWriter, folder: RunFolder, notes: FailureNotes) -> None:
        self._traces = traces
        self._folder = folder
        self._notes = notes

    async def record(
        self, group: Group, *, step: int, fate: Fate, split: Literal["train", "eval"] = "train"
    ) -> None:
        """Record one group for good."""
        self._notes.look(group.trajectories)
        await self._traces.record(group, step=step, split=split, fate=fate)

    async def begin(
        self, groups: Sequence[Group], *, step: int, fate: Literal["trained", "eval"]
    ) -> None:
        """Record groups; a checkpoint that is written before `end` leaves them out."""
        await self._traces.flush()
        self._folder.hold()
        split: Literal["train", "eval"] = "eval" if fate == "eval" else "train"
        for group in groups:
            await self.record(group, step=step, fate=fate, split=split)

    def end(self) -> None:
        """Let them count."""
        self._folder.release()
