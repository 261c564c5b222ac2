"""Success on samples that were not trained on."""

import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from statistics import fmean

from agentrl.config.rollout import SamplingConfig
from agentrl.config.run import RunConfig
from agentrl.contracts.sample import Sample
from agentrl.contracts.trajectory import Group
from agentrl.errors import RunError
from agentrl.rollout.metrics import rollout_metrics, well_formed_share
from agentrl.rollout.tally import Tally
from agentrl.runs.reporter import Reporter
from agentrl.runs.run import Run
from agentrl.seed import derive_seed
from agentrl.trainer.recording import Recorder
from agentrl.trainer.runtime import RolloutHost


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """One evaluation. `success` counts an episode that could not be finished as a failure."""

    success: float
    metrics: dict[str, float]
    groups: tuple[Group, ...]


async def evaluate(
    host: RolloutHost,
    samples: Sequence[Sample],
    *,
    name: str,
    seed: int,
    temperature: float,
    reporter: Reporter,
) -> Evaluation:
    """Roll out every sample once and count successes.

    Raises:
        RunError: not one episode could be finished, or the task cannot tell its success.
    """
    began, groups = time.monotonic(), dict[int, Group]()
    reporter.phase_started("eval", len(samples))
    sampling = SamplingConfig(temperature=temperature)
    running = host.rollout.run_groups(samples, name=name, size=1, seed=seed, sampling=sampling)
    async with aclosing(running) as finished:
        async for position, group in finished:
            groups[position] = group
            reporter.progress(len(groups))
    ordered = tuple(group for _, group in sorted(groups.items()))
    trajectories = [t for group in ordered for t in group.trajectories]
    if all(t.dropped for t in trajectories):
        raise RunError(
            f"{name}: none of {len(trajectories)} episodes could be finished; the last error was: "
            f"{trajectories[-1].error}"
        )
    succeeded = host.plugins.succeeded
    success = fmean(not t.dropped and succeeded(t) for t in trajectories)
    metrics = {"eval/success": success, "eval/samples": float(len(samples))}
    metrics["timing_s/eval"] = time.monotonic() - began
    if (well_formed := well_formed_share(trajectories)) is not None:
        metrics["eval/well_formed_calls"] = well_formed
    metrics |= {f"eval/{key}": value for key, value in rollout_metrics(ordered, succeeded).items()}
    reporter.phase_ended("eval", metrics)
    return Evaluation(success=success, metrics=metrics, groups=ordered)


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Evaluates a run before its first step, every so often, and after its last."""

    config: RunConfig
    run: Run
    host: RolloutHost
    recorder: Recorder
    tally: Tally
    samples: Sequence[Sample]

    def is_due(self, step: int, steps: int) -> bool:
        """Whether an evaluation follows this step of `steps`."""
        every = self.config.eval.every
        regular = every > 0 and step % every == 0
        return bool(self.samples) and (step == 0 or regular or step >= steps)

    async def evaluate_if_due(self, steps: int) -> None:
        """Evaluate the present policy, if that is due and has not been done.

        Raises:
            RunError: it cannot be evaluated; a checkpoint has been written.
        """
        run, step = self.run, self.run.progress.step
        if step in run.progress.success or not self.is_due(step, steps):
            return
        evaluation = await run.needs(
            evaluate(
                self.host,
                self.samples,
                name=f"eval{step}",
                seed=derive_seed(self.config.seed, "eval"),
                temperature=self.config.eval.temperature,
                reporter=run.reporter,
            )
        )
        if self.host.engine.failure is not None:
            await run.stop(self.host.engine.failure)
        await self.recorder.begin(evaluation.groups, step=step, fate="eval")
        self.tally.count(evaluation.groups, executions=self.host.services.executions)
        run.progress.success[step] = evaluation.success
        run.folder.record_metrics(step, "eval", evaluation.metrics)
        self.recorder.end()
