"""The training loop: SFT if asked for, then sample > rollout > update > sync > record.

    sft > evaluate > [ roll out groups > update  > record > sync  > probe       ] > evaluate
                       GroupFeed         Updater   RunDir   Engine  ParityProbe

Everything that changes between steps is in the policy, the optimizer and `Progress`; all three
are in every checkpoint. A cancellation takes effect before an update or after its record, so a
checkpoint finds the run either before a step or after it.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

from agentrl.algorithms.registry import build_algorithm
from agentrl.config.load import load_config
from agentrl.config.run import RunConfig
from agentrl.contracts.sample import Sample
from agentrl.contracts.tool import ToolOutcome
from agentrl.contracts.trajectory import Group
from agentrl.errors import ConfigError, EngineError, RunError
from agentrl.learner.optimizer import Optimizer
from agentrl.learner.reference import open_reference
from agentrl.learner.update import Updater, check_sampling
from agentrl.runs.checkpoint import (
    Progress,
    latest_checkpoint,
    load_state,
    restore_random_state,
    save_checkpoint,
)
from agentrl.runs.compute import Compute
from agentrl.runs.folder import RunDir
from agentrl.runs.reporter import Reporter
from agentrl.seed import derive_seed
from agentrl.trainer.engines import check_trainable, parity_config
from agentrl.trainer.evaluate import evaluate
from agentrl.trainer.feed import GroupFeed
from agentrl.trainer.imitate import imitate
from agentrl.trainer.metrics import age_metrics, rollout_metrics, timing_metrics
from agentrl.trainer.parity import ParityProbe
from agentrl.trainer.runtime import Runtime

logger = logging.getLogger(__name__)
T = TypeVar("T")


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
    """Trains one policy as a configuration says.

    Args:
        config: what to do.
        resume: continue from the run folder's newest checkpoint, if there is one.
        reporter: told of progress.

    Raises:
        ConfigError: the run folder is another run's, or the configuration does not work out.
        NotReadyError: the environment lacks something.
    """

    def __init__(
        self, config: RunConfig, *, resume: bool = False, reporter: Reporter | None = None
    ) -> None:
        self.config = config
        self.run_dir = RunDir(config.run_dir)
        self.reporter = reporter or Reporter()
        self.progress = Progress()
        self._saved: tuple[int, int] | None = None
        self._isolation: str | None = None
        self.compute = Compute()
        self._parity: dict[str, float] = {}
        check_sampling(config.rollout.sampling)
        check_trainable(config)
        self.run_dir.check(config, resume=resume)
        folder = latest_checkpoint(self.run_dir) if resume else None
        self._state = load_state(folder) if folder else None
        self.runtime = Runtime(config, weights=folder)
        # Read before anything is written or trained: bad data should not cost an SFT.
        self._train_samples = self._read_train_samples()
        self._test_samples = self._read_test_samples()
        self._probe = ParityProbe(self._probe_text(), parity_config(config))
        self.run_dir.open(config)
        self.run_dir.cut_records(self._state["records"] if self._state else {})
        if self._state is not None:
            self.progress = self._state["progress"]
            restore_random_state(self._state["random"])
            self._saved = (self.progress.sft_step, self.progress.step)
            self.reporter.note(f"resuming from {folder}")
        self._executions_before = self.progress.executions
        self.optimizer = self._optimizer()

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

    def train(self, *, sft_only: bool = False) -> TrainResult:
        """Run to the end. Ctrl-C and SIGTERM write a checkpoint first.

        Raises:
            KeyboardInterrupt: after Ctrl-C, or SIGTERM.
            RunError: the run cannot go on.
        """
        try:
            return asyncio.run(self._run_interruptible(sft_only))
        except asyncio.CancelledError:
            # Caught out here: a signal after the last await is raised by the event loop.
            raise KeyboardInterrupt from None

    async def run(self, *, sft_only: bool = False) -> TrainResult:
        """Run to the end inside an event loop of the caller's."""
        async with self.runtime:
            try:
                if self.progress.sft_step < self.config.sft.steps:
                    await imitate(self)
                await self._reinforce(0 if sft_only else self.config.train.steps)
                self._isolation = self.runtime.services.isolation
            except asyncio.CancelledError:
                self.save()
                raise
            finally:
                self.compute.close()
        return self.result()

    def result(self) -> TrainResult:
        """Summarise the run so far."""
        success = self.progress.success
        return TrainResult(
            run_dir=self.run_dir.path,
            steps=self.progress.step,
            success_before=success.get(0),
            success_after=success[max(success)] if success else None,
            executions=self.progress.executions,
            rewarded=self.progress.rewarded,
            rewarded_by_execution=self.progress.rewarded_by_execution,
            isolation=self._isolation,
        )

    def save(self) -> None:
        """Write a checkpoint of the present state, unless it is the one last written.

        Raises:
            NotReadyError: the disk is full.
        """
        mark = (self.progress.sft_step, self.progress.step)
        if mark == self._saved:
            return
        in_sft = self.progress.sft_step < self.config.sft.steps
        save_checkpoint(
            self.run_dir,
            f"sft-{mark[0]}" if in_sft else f"step-{mark[1]}",
            policy=self.runtime.policy,
            optimizer=self.optimizer,
            progress=self.progress,
            keep=self.config.checkpoint.keep,
        )
        self._saved = mark

    def begin_reinforcement(self) -> None:
        """End the SFT phase: another optimizer, and a checkpoint."""
        self.optimizer = self._optimizer()
        self.save()

    async def _run_interruptible(self, sft_only: bool) -> TrainResult:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            return await self.run(sft_only=sft_only)
        finally:
            loop.remove_signal_handler(signal.SIGTERM)

    def _optimizer(self) -> Optimizer:
        """Make the present phase's optimizer, with its saved state when resuming."""
        train, model = self.config.train, self.runtime.policy.model
        if self.progress.sft_step < self.config.sft.steps:
            optimizer = Optimizer(model, self.config.sft.optimizer, self.config.sft.steps)
        else:
            updates = train.steps * train.epochs_per_step * train.minibatches_per_epoch
            optimizer = Optimizer(model, self.config.optimizer, updates)
        if self._state is not None:
            optimizer.load_state_dict(self._state["optimizer"])
            self._state = None
        return optimizer

    async def _reinforce(self, steps: int) -> None:
        """Improve the policy by what its rollouts are rewarded with."""
        async with self.runtime.policy.lock:
            await self._sync(self.progress.step)
        await self._check_parity(self.progress.step)
        await self._evaluate_if_due(steps)
        if self.progress.step >= steps:
            self.save()
            return
        updater = self._updater()
        self.reporter.phase_started("train", steps)
        metrics: dict[str, float] = {}
        rollout = self.runtime.rollout
        feed = GroupFeed(rollout, self._train_samples, self.config, self.progress)
        async with aclosing(feed):
            while self.progress.step < steps:
                metrics = await self._step(feed, updater)
                await self._evaluate_if_due(steps)
                if self.is_due(self.progress.step) or self.progress.step == steps:
                    self.save()
        self.reporter.phase_ended("train", metrics)

    async def _step(self, feed: GroupFeed, updater: Updater) -> dict[str, float]:
        """Take one step, from samples to weights that the engine has."""
        progress, engine = self.progress, self.runtime.engine
        step, began = progress.step + 1, time.monotonic()
        taken = await feed.take(progress.step)
        groups = list(taken.values())
        self._check_engine()
        self._check_not_empty(groups)
        rolled_out = time.monotonic()
        metrics = rollout_metrics(groups, self.runtime.task) | feed.metrics()
        metrics |= age_metrics(groups, progress.step)
        # Held until the engine has the new weights: one that starts again never gets half of them.
        async with self.runtime.policy.lock:
            if self.config.rollout.max_staleness == 0:
                await self._by_engine(engine.sleep())
            metrics |= await self.compute.run(partial(updater.update, step, groups))
            ended = time.monotonic()
            metrics |= timing_metrics(groups, began, rolled_out, ended)
            progress.step = step
            progress.pending = [p for p in progress.pending if p not in taken]
            self._count(groups)
            metrics["sandbox/executions"] = float(progress.executions)
            metrics |= engine.drain_metrics() | self._parity
            self.run_dir.record_groups(step, "train", groups)
            self.run_dir.record_metrics(step, "train", metrics)
            self.reporter.step_finished(step, metrics)
            await self._sync(step)
        await self._check_parity(step)
        return metrics

    async def _sync(self, version: int) -> None:
        """Bring the engine the policy's weights. The policy's lock is held.

        Raises:
            RunError: the engine failed; a checkpoint has been written.
        """
        engine = self.runtime.engine
        await self._by_engine(engine.wake())
        await self._by_engine(engine.update_weights(self.runtime.policy, version))

    async def _check_parity(self, version: int) -> None:
        """See that the engine computes with the policy's weights.

        Raises:
            RunError: it does not, or failed; a checkpoint has been written.
        """
        # Without the policy's lock, which an engine that dies meanwhile needs to come back.
        engine, policy = self.runtime.engine, self.runtime.policy
        probe = self._probe.check(engine, policy, self.compute, version)
        self._parity = await self._by_engine(probe)

    async def _by_engine(self, work: Awaitable[T]) -> T:
        """Await what only a working engine does."""
        try:
            return await work
        except (EngineError, RunError) as error:
            self._stop(str(error))

    def _check_engine(self) -> None:
        """Stop the run when the engine has failed for good."""
        if self.runtime.engine.failure is not None:
            self._stop(self.runtime.engine.failure)

    def _stop(self, why: str) -> NoReturn:
        """Write a checkpoint and give up."""
        self.save()
        raise RunError(f"{why}. A checkpoint is written: continue with --resume")

    async def _evaluate_if_due(self, steps: int) -> None:
        """Evaluate before the first step, every so often, and after the last."""
        config, step = self.config.eval, self.progress.step
        regular = config.every > 0 and step % config.every == 0
        if not self._test_samples or step in self.progress.success:
            return
        if not (step == 0 or regular or step >= steps):
            return
        evaluation = await self._by_engine(
            evaluate(
                self.runtime.rollout,
                self.runtime.task,
                self._test_samples,
                name=f"eval{step}",
                seed=derive_seed(self.config.seed, "eval"),
                temperature=config.temperature,
                reporter=self.reporter,
            )
        )
        self._check_engine()
        self._count(evaluation.groups)
        self.progress.success[step] = evaluation.success
        self.run_dir.record_groups(step, "eval", evaluation.groups)
        self.run_dir.record_metrics(step, "eval", evaluation.metrics)

    def _probe_text(self) -> list[int]:
        """A prompt of the task's: text of the kind that the policy will see."""
        tools = list(self.runtime.schemas.values())
        return [int(i) for i in self.runtime.renderer.prompt(self._train_samples[0].prompt, tools)]

    def _read_train_samples(self) -> Sequence[Sample]:
        samples = self.runtime.task.samples("train")
        if not samples:
            raise ConfigError(
                f"{type(self.runtime.task).__name__}.samples('train') is empty; expected a sample"
            )
        return samples

    def _read_test_samples(self) -> Sequence[Sample]:
        count = self.config.eval.samples
        return self.runtime.task.samples("test")[:count] if count else ()

    def _updater(self) -> Updater:
        algorithm = build_algorithm(self.config.algorithm)
        reference = None
        if algorithm.needs_reference:
            reference = open_reference(self.run_dir, self.runtime.policy, self.progress.step)
        return Updater(
            self.runtime.policy,
            algorithm,
            self.optimizer,
            self.config.train,
            temperature=self.config.rollout.sampling.temperature,
            seed=self.config.seed,
            reference=reference,
        )

    def _check_not_empty(self, groups: Sequence[Group]) -> None:
        """Stop when step after step has nothing to learn from.

        Raises:
            RunError: `train.max_empty_steps` in a row had every trajectory dropped.
        """
        if any(group.kept for group in groups):
            self.progress.empty_steps = 0
            return
        self.progress.empty_steps += 1
        if self.progress.empty_steps >= self.config.train.max_empty_steps:
            errors = [t.error for group in groups for t in group.trajectories if t.error]
            raise RunError(
                f"all trajectories of {self.progress.empty_steps} steps in a row were dropped; "
                f"the last error was: {errors[-1] if errors else 'none'}"
            )

    def _count(self, groups: Sequence[Group]) -> None:
        """Add to the run's totals."""
        progress = self.progress
        progress.executions = self._executions_before + self.runtime.services.executions
        rewarded = [t for group in groups for t in group.kept if t.reward > 0]
        progress.rewarded += len(rewarded)
        progress.rewarded_by_execution += sum(
            any(r.outcome is ToolOutcome.OK for r in t.tool_records) for t in rewarded
        )

    def is_due(self, step: int) -> bool:
        """Whether a regular checkpoint follows this step."""
        every = self.config.checkpoint.every
        return every > 0 and step % every == 0
