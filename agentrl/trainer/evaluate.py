"""Success on samples that were not trained on."""

import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from agentrl.config.rollout import SamplingConfig
from agentrl.config.run import RunConfig
from agentrl.contracts.sample import Sample
from agentrl.contracts.task import BaseTask, Split
from agentrl.contracts.trajectory import Group
from agentrl.errors import ConfigError, RunError
from agentrl.rollout.group import Rollout
from agentrl.runs.reporter import Reporter
from agentrl.seed import derive_seed
from agentrl.traces.store import group_traces, write_traces
from agentrl.trainer.metrics import rollout_metrics, well_formed_share
from agentrl.trainer.runtime import Runtime


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """One evaluation. `success` counts an episode that could not be finished as a failure."""

    success: float
    metrics: dict[str, float]
    groups: tuple[Group, ...]


async def evaluate(
    rollout: Rollout,
    task: BaseTask,
    samples: Sequence[Sample],
    *,
    name: str,
    seed: int,
    temperature: float,
    reporter: Reporter,
) -> Evaluation:
    """Roll out every sample once and count successes.

    Raises:
        RunError: not one episode could be finished.
    """
    began = time.monotonic()
    reporter.phase_started("eval", len(samples))
    groups: dict[int, Group] = {}
    sampling = SamplingConfig(temperature=temperature)
    async with aclosing(
        rollout.run_groups(samples, name=name, size=1, seed=seed, sampling=sampling)
    ) as finished:
        async for position, group in finished:
            groups[position] = group
            reporter.progress(len(groups))
    ordered = tuple(groups[position] for position in sorted(groups))
    trajectories = [t for group in ordered for t in group.trajectories]
    if all(t.dropped for t in trajectories):
        raise RunError(
            f"{name}: none of {len(trajectories)} episodes could be finished; the last error was: "
            f"{trajectories[-1].error}"
        )
    success = fmean(not t.dropped and task.succeeded(t) for t in trajectories)
    well_formed = well_formed_share(trajectories)
    metrics = {
        "eval/success": success,
        "eval/samples": float(len(samples)),
        "timing_s/eval": time.monotonic() - began,
    }
    if well_formed is not None:
        metrics["eval/well_formed_calls"] = well_formed
    metrics |= {f"eval/{key}": value for key, value in rollout_metrics(ordered, task).items()}
    reporter.phase_ended("eval", metrics)
    return Evaluation(success=success, metrics=metrics, groups=ordered)


async def evaluate_once(
    config: RunConfig,
    *,
    weights: Path | None,
    output: Path | None,
    reporter: Reporter,
    split: Split = "test",
) -> Evaluation:
    """Evaluate a configuration's policy, or the checkpoint in `weights`, outside of training.

    Raises:
        ConfigError: the configuration does not work out.
        NotReadyError: the environment lacks something.
    """
    async with Runtime(config, weights=weights) as runtime:
        samples = _first(runtime, split, config.eval.samples)
        evaluation = await evaluate(
            runtime.rollout,
            runtime.task,
            samples,
            name="eval",
            seed=derive_seed(config.seed, "eval"),
            temperature=config.eval.temperature,
            reporter=reporter,
        )
    if output is not None:
        write_traces(output, group_traces(0, "eval", evaluation.groups))
    return evaluation


async def roll_out_samples(
    config: RunConfig, *, weights: Path | None, split: Split, count: int
) -> list[Group]:
    """Roll out the first `count` samples of a split once each, as training would sample them.

    Raises:
        ConfigError: the configuration does not work out.
        NotReadyError: the environment lacks something.
    """
    async with Runtime(config, weights=weights) as runtime:
        samples = _first(runtime, split, count)
        return [
            await runtime.rollout.run_group(
                sample, group_id=f"{split}-{i}", size=1, seed=derive_seed(config.seed, split, i)
            )
            for i, sample in enumerate(samples)
        ]


def _first(runtime: Runtime, split: Split, count: int) -> Sequence[Sample]:
    samples = runtime.task.samples(split)[:count]
    if not samples:
        raise ConfigError(f"the task has no {split} samples; set task.{split}, or ask for some")
    return samples
