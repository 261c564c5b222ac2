"""The training loop: SFT if asked for, then sample > rollout > update > sync > record.

    sft > evaluate > [ take samples > roll out groups > update  > record > sync   ] > evaluate
                       data_order     Rollout           Updater   RunDir   Engine

Everything that changes between steps is in the policy, the optimiser and `Progress`; all three
are in every checkpoint. A cancellation takes effect before an update or after its record, so a
checkpoint finds the run either before a step or after it.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agentrl.algorithms.registry import build_algorithm
from agentrl.config.load import load_config
from agentrl.config.run import RunConfig
from agentrl.contracts.sample import Sample
from agentrl.contracts.seed import derive_seed
from agentrl.contracts.tool import ToolOutcome
from agentrl.contracts.trajectory import Group
from agentrl.errors import ConfigError, RunError
from agentrl.trainer.checkpoint import (
    Progress,
    latest_checkpoint,
    load_state,
    restore_random_state,
    save_checkpoint,
)
from agentrl.trainer.compute import Compute
from agentrl.trainer.data_order import take
from agentrl.trainer.evaluate import evaluate
from agentrl.trainer.metrics import rollout_metrics
from agentrl.trainer.optimiser import Optimiser
from agentrl.trainer.reference import open_reference
from agentrl.trainer.report import Reporter
from agentrl.trainer.run_dir import RunDir
from agentrl.trainer.runtime import Runtime
from agentrl.trainer.sft import render_demonstrations, sft_step
from agentrl.trainer.update import Updater, check_sampling

logger = logging.getLogger(__name__)


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
        self._compute = Compute()
        check_sampling(config.rollout.sampling)
        self.run_dir.check(config, resume=resume)
        folder = latest_checkpoint(self.run_dir) if resume else None
        self._state = load_state(folder) if folder else None
        self.runtime = Runtime(config, weights=folder)
        # Read before anything is written or trained: bad data should not cost an SFT.
        self._train_samples = self._read_train_samples()
        self._test_samples = self._read_test_samples()
        self.run_dir.open(config)
        self.run_dir.cut_records(self._state["records"] if self._state else {})
        if self._state is not None:
            self.progress = self._state["progress"]
            restore_random_state(self._state["random"])
            self._saved = (self.progress.sft_step, self.progress.step)
            self.reporter.note(f"resuming from {folder}")
        self._executions_before = self.progress.executions
        self.optimiser = self._optimiser()

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
                    await self._sft()
                await self._reinforce(0 if sft_only else self.config.train.steps)
                self._isolation = self.runtime.services.isolation
            except asyncio.CancelledError:
                self.save()
                raise
            finally:
                self._compute.close()
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
            optimiser=self.optimiser,
            progress=self.progress,
            keep=self.config.checkpoint.keep,
        )
        self._saved = mark

    async def _run_interruptible(self, sft_only: bool) -> TrainResult:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            return await self.run(sft_only=sft_only)
        finally:
            loop.remove_signal_handler(signal.SIGTERM)

    def _optimiser(self) -> Optimiser:
        """Make the present phase's optimiser, with its saved state when resuming."""
        train, model = self.config.train, self.runtime.policy.model
        if self.progress.sft_step < self.config.sft.steps:
            optimiser = Optimiser(model, self.config.sft.optimiser, self.config.sft.steps)
        else:
            updates = train.steps * train.epochs_per_step * train.minibatches_per_epoch
            optimiser = Optimiser(model, self.config.optimiser, updates)
        if self._state is not None:
            optimiser.load_state_dict(self._state["optimiser"])
            self._state = None
        return optimiser

    async def _sft(self) -> None:
        """Imitate the demonstrations."""
        config, progress = self.config.sft, self.progress
        sequences = render_demonstrations(
            self.runtime.task.demonstrations(),
            self.runtime.renderer,
            self.runtime.schemas,
            max_length=config.max_length,
        )
        self.reporter.phase_started("sft", config.steps)
        metrics: dict[str, float] = {}
        while progress.sft_step < config.steps:
            # A cancellation enters here, not after the last step, whose optimiser is discarded.
            await asyncio.sleep(0)
            start = progress.sft_step * config.batch_size
            chosen = take(
                len(sequences), start=start, size=config.batch_size, seed=self.config.seed
            )
            batch = [sequences[i] for i in chosen]
            metrics = await self._compute.run(
                partial(
                    sft_step,
                    self.runtime.policy,
                    self.optimiser,
                    batch,
                    max_tokens=self.config.train.max_tokens_per_microbatch,
                )
            )
            progress.sft_step += 1
            self.run_dir.record_metrics(progress.sft_step, "sft", metrics)
            self.reporter.step_finished(progress.sft_step, metrics)
            if self._is_due(progress.sft_step) and progress.sft_step < config.steps:
                self.save()
        self.optimiser = self._optimiser()
        self.save()
        self.reporter.phase_ended("sft", metrics)

    async def _reinforce(self, steps: int) -> None:
        """Improve the policy by what its rollouts are rewarded with."""
        await self.runtime.engine.update_weights(self.runtime.policy, self.progress.step)
        await self._evaluate_if_due(steps)
        if self.progress.step >= steps:
            self.save()
            return
        updater = self._updater()
        self.reporter.phase_started("train", steps)
        metrics: dict[str, float] = {}
        while self.progress.step < steps:
            metrics = await self._step(updater)
            await self._evaluate_if_due(steps)
            if self._is_due(self.progress.step) or self.progress.step == steps:
                self.save()
        self.reporter.phase_ended("train", metrics)

    async def _step(self, updater: Updater) -> dict[str, float]:
        """Take one step, from samples to a recorded update."""
        progress, size = self.progress, self.config.train.prompts_per_step
        step, began = progress.step + 1, time.monotonic()
        samples, seed = self._train_samples, self.config.seed
        chosen = take(len(samples), start=progress.position, size=size, seed=seed)
        batch = [samples[i] for i in chosen]
        groups = await self._roll_out(step, batch)
        await self.runtime.engine.sleep()
        rolled_out = time.monotonic()
        self._check_not_empty(groups)
        metrics = rollout_metrics(groups, self.runtime.task)
        metrics |= await self._compute.run(partial(updater.update, step, groups))
        ended = time.monotonic()
        tokens = sum(len(t.token_ids) for group in groups for t in group.trajectories)
        metrics |= {
            "timing_s/rollout": rolled_out - began,
            "timing_s/update": ended - rolled_out,
            "timing_s/step": ended - began,
            "perf/throughput": tokens / (ended - began),
        }
        progress.step, progress.position = step, progress.position + size
        self._count(groups)
        metrics["sandbox/executions"] = float(progress.executions)
        self.run_dir.record_groups(step, "train", groups)
        self.run_dir.record_metrics(step, "train", metrics)
        self.reporter.step_finished(step, metrics)
        await self.runtime.engine.wake()
        await self.runtime.engine.update_weights(self.runtime.policy, step)
        return metrics

    async def _roll_out(self, step: int, batch: list[Sample]) -> list[Group]:
        """Roll out a group per sample; return them in the samples' order."""
        groups: dict[int, Group] = {}
        async with aclosing(
            self.runtime.rollout.run_groups(
                batch,
                name=f"step{step}",
                size=self.config.rollout.group_size,
                seed=derive_seed(self.config.seed, "train", step),
            )
        ) as finished:
            async for position, group in finished:
                groups[position] = group
        return [groups[position] for position in sorted(groups)]

    async def _evaluate_if_due(self, steps: int) -> None:
        """Evaluate before the first step, every so often, and after the last."""
        config, step = self.config.eval, self.progress.step
        regular = config.every > 0 and step % config.every == 0
        if not self._test_samples or step in self.progress.success:
            return
        if not (step == 0 or regular or step >= steps):
            return
        evaluation = await evaluate(
            self.runtime.rollout,
            self.runtime.task,
            self._test_samples,
            name=f"eval{step}",
            seed=derive_seed(self.config.seed, "eval"),
            temperature=config.temperature,
            reporter=self.reporter,
        )
        self._count(evaluation.groups)
        self.progress.success[step] = evaluation.success
        self.run_dir.record_groups(step, "eval", evaluation.groups)
        self.run_dir.record_metrics(step, "eval", evaluation.metrics)

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
            self.optimiser,
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

    def _is_due(self, step: int) -> bool:
        every = self.config.checkpoint.every
        return every > 0 and step % every == 0
