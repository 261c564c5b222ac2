"""Training: a run and its phases.

Trainer = Run + [ imitation (if asked for) > reinforcement ]
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agentrl.algorithms.registry import resolve_algorithm
from agentrl.config.load import load_config
from agentrl.config.run import RunConfig
from agentrl.engines.served import check_trainable
from agentrl.learner.learner import check_sampling
from agentrl.rollout.tally import Tally
from agentrl.runs.folder import RunFolder
from agentrl.runs.progress import Progress
from agentrl.runs.reporter import Reporter
from agentrl.runs.run import Run
from agentrl.trainer.content import Plugins
from agentrl.trainer.graph import grpo
from agentrl.trainer.phases import imitation, reinforcement
from agentrl.trainer.session import Session, open_session
from agentrl.watch.watch import watch_run


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """What a run came to. Successes are shares of the test samples; None without evaluation.

    `executions` counts the programs that ran in the sandbox. Of the `rewarded` trajectories (those
    with a positive reward, evaluations included), `rewarded_by_execution` executed a tool call.
    """

    run_dir: Path
    steps: int
    success_before: float | None
    success_after: float | None
    executions: int
    rewarded: int
    rewarded_by_execution: int
    isolation: str | None


class Trainer:
    """Trains one policy as a configuration says. Making it reads and checks, and writes nothing.

    Args:
        config: what to do.
        resume: continue from the run folder's newest checkpoint, if there is one.
        reporter: told of progress.

    Raises:
        ConfigError: the run folder is another run's, or the configuration does not work out.
    """

    def __init__(
        self, config: RunConfig, *, resume: bool = False, reporter: Reporter | None = None
    ) -> None:
        check_sampling(config.rollout.sampling)
        check_trainable(config)
        algorithm = resolve_algorithm(config.algorithm, base=config.base_dir)
        self.config = config = config.model_copy(update={"algorithm": algorithm})
        self._run = Run(
            config.model_dump(mode="json"),
            config.run_dir,
            config.checkpoint,
            resume=resume,
            reporter=reporter or Reporter(),
        )
        grpo(config)
        self._tally = Tally()
        self._plugins = Plugins.load(config)
        self._train = self._plugins.samples("train")
        count = config.eval.samples
        self._test = self._plugins.samples("test")[:count] if count else ()

    @classmethod
    def from_config(
        cls,
        config: RunConfig | str | Path,
        overrides: Sequence[str] = (),
        *,
        resume: bool = False,
        reporter: Reporter | None = None,
    ) -> "Trainer":
        """Make a trainer from a configuration or a YAML file and `key.sub=value` words."""
        if not isinstance(config, RunConfig):
            config = load_config(config, overrides)
        return cls(config, resume=resume, reporter=reporter)

    @property
    def progress(self) -> Progress:
        """How far the run has come."""
        return self._run.progress

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return self._run.folder

    def train(self, *, sft_only: bool = False) -> TrainResult:
        """Run to the end. Ctrl-C and SIGTERM write a checkpoint first.

        Raises:
            KeyboardInterrupt: after Ctrl-C, or SIGTERM.
            NotReadyError: the environment lacks something.
            RunError: the run cannot go on.
        """
        try:
            return asyncio.run(self._run_interruptible(sft_only))
        except asyncio.CancelledError:
            # Caught out here: a signal after the last await is raised by the event loop.
            raise KeyboardInterrupt from None

    async def run(self, *, sft_only: bool = False) -> TrainResult:
        """Run to the end inside an event loop of the caller's."""
        async with self.opened() as session:
            try:
                if self.progress.phase == "sft":
                    await imitation.run(session)
                await reinforcement.run(session, 0 if sft_only else self.config.train.steps)
            except asyncio.CancelledError:
                await self._run.save()
                raise
            return self._result(session.host.services.isolation)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Session]:
        """Take the folder and open everything, where the run left it; `run` does this itself."""
        with self._run.opened(), watch_run(self.config.watch, self._run) as watch:
            async with open_session(
                self.config,
                self._run,
                self._tally,
                self._plugins,
                watch,
                train=self._train,
                test=self._test,
            ) as session:
                yield session

    def _result(self, isolation: str | None) -> TrainResult:
        success = self.progress.success
        return TrainResult(
            run_dir=self.folder.path,
            steps=self.progress.step,
            success_before=success.get(0),
            success_after=success[max(success)] if success else None,
            executions=self._tally.executions,
            rewarded=self._tally.rewarded,
            rewarded_by_execution=self._tally.rewarded_by_execution,
            isolation=isolation,
        )

    async def _run_interruptible(self, sft_only: bool) -> TrainResult:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            return await self.run(sft_only=sft_only)
        finally:
            loop.remove_signal_handler(signal.SIGTERM)
