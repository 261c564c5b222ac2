"""Success on samples that were not trained on."""

import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from statistics import fmean

from agentrl.config.rollout import SamplingConfig
from agentrl.contracts.sample import Sample
from agentrl.contracts.task import BaseTask
from agentrl.contracts.trajectory import Group
from agentrl.rollout.rollout import Rollout
from agentrl.trainer.metrics import rollout_metrics, well_formed_share
from agentrl.trainer.report import Reporter


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
    """Roll out every sample once and count successes."""
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
