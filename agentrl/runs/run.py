"""A run: what every phase of it shares, whatever it trains.

Everything that changes between steps is a named part; a checkpoint is the model and the states of
all parts. Saving happens in the compute thread, so that episodes, sandboxes and engines stay
alive meanwhile.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from agentrl.config.train import CheckpointConfig
from agentrl.errors import InfraError, RunError
from agentrl.runs.checkpoint import (
    RandomState,
    Savable,
    Stateful,
    latest_checkpoint,
    load_states,
    restore,
    save_checkpoint,
)
from agentrl.runs.compute import Compute
from agentrl.runs.folder import RunFolder
from agentrl.runs.progress import Progress
from agentrl.runs.reporter import Reporter
from agentrl.waits import waiting

T = TypeVar("T")

WRITE_DEADLINE_S = 3600.0
"""Of writing a checkpoint, the work of the compute thread before it included."""


class Run:
    """One run of a configuration tree. Making it reads the folder and writes nothing.

    `model` and further `parts` join while the run is being built, before `restore`; `settle` is
    awaited before every checkpoint, for records that are still being written.

    Raises:
        ConfigError: the folder is another run's.
    """

    model: Savable
    settle: Callable[[], Awaitable[None]] | None = None

    def __init__(
        self,
        config: Mapping[str, Any],
        path: Path,
        checkpoint: CheckpointConfig,
        *,
        resume: bool,
        reporter: Reporter,
    ) -> None:
        self.folder = RunFolder(path)
        self.progress = Progress()
        self.reporter = reporter
        self.compute = Compute()
        self.parts: dict[str, Stateful] = {
            "progress": self.progress,
            "random": RandomState(),
            "records": self.folder,
        }
        self._config = config
        self._checkpoint = checkpoint
        self._resume = resume
        self._saved: str | None = None
        self.folder.check(config, resume=resume)
        self.origin = latest_checkpoint(self.folder) if resume else None
        """The checkpoint that the run goes on from, if any."""

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the folder; free the compute thread at the end.

        Raises:
            ConfigError: another process writes into the folder.
        """
        try:
            with self.folder.opened(self._config, resume=self._resume):
                yield
        finally:
            self.compute.close()

    def load(self) -> dict[str, Any]:
        """Read the states to go on from, and set the progress; a new run has none.

        Raises:
            ConfigError: they cannot be read.
        """
        if self.origin is None:
            return {}
        states = load_states(self.origin)
        restore(self.origin, states, {"progress": self.progress})
        return states

    def restore(self, states: Mapping[str, Any]) -> None:
        """Set every part to what `load` returned, and cut the records.

        Without a checkpoint the run starts over; the records of an earlier attempt are kept aside.

        Raises:
            ConfigError: a part is not of this run.
        """
        if self.origin is None:
            aside = self.folder.set_aside()
            if self._resume or aside:
                kept = f"; what an earlier attempt recorded is in {aside}" if aside else ""
                self.reporter.note(
                    f"{self.folder.path} has no checkpoint: starting from the beginning{kept}"
                )
            return
        restore(self.origin, states, self.parts)
        self._saved = self.progress.mark
        self.reporter.note(f"resuming from {self.origin}")

    async def save(self) -> None:
        """Write a checkpoint of the present state, unless it is the one last written.

        Raises:
            NotReadyError: the disk is full.
        """
        mark = self.progress.mark
        if mark == self._saved:
            return
        if self.settle is not None:
            await self.settle()
        states = {name: part.state_dict() for name, part in self.parts.items()}
        write = partial(
            save_checkpoint,
            self.folder,
            mark,
            model=self.model,
            states=states,
            keep=self._checkpoint.keep,
        )
        resource, remedy = f"disk: checkpoint {mark}", f"look at the disk of {self.folder.path}"
        with waiting(resource, "the run", remedy=remedy, deadline_s=WRITE_DEADLINE_S):
            try:
                await self.compute.run(write, deadline_s=WRITE_DEADLINE_S)
            except TimeoutError as error:
                raise RunError(
                    f"{resource}: {error}; {remedy}; the one before it is whole"
                ) from error
        self._saved = mark

    def is_due(self, step: int) -> bool:
        """Whether a regular checkpoint follows this step."""
        every = self._checkpoint.every
        return every > 0 and step % every == 0

    async def stop(self, why: str) -> NoReturn:
        """Write a checkpoint and give up.

        Raises:
            RunError: always.
        """
        await self.save()
        raise RunError(f"{why}. A checkpoint is written: continue with --resume")

    async def needs(self, work: Awaitable[T]) -> T:
        """Await what the run cannot go on without.

        Raises:
            RunError: it failed; a checkpoint has been written.
        """
        try:
            return await work
        except (InfraError, RunError) as error:
            await self.stop(str(error))
