"""Evaluations and single rollouts outside of a run: what `agentrl eval` and `rollout` do."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from agentrl.config.run import RunConfig
from agentrl.contracts.sample import Sample
from agentrl.contracts.task import Split
from agentrl.contracts.trajectory import Group
from agentrl.runs.reporter import Reporter
from agentrl.seed import derive_seed
from agentrl.traces.record import Trace
from agentrl.traces.store import append_trace
from agentrl.trainer.content import Plugins
from agentrl.trainer.evaluate import Evaluation, evaluate
from agentrl.trainer.recording import FailureNotes
from agentrl.trainer.runtime import RolloutHost, open_rollout
from agentrl.watch.watch import Watch


async def evaluate_once(
    config: RunConfig,
    *,
    weights: Path | None,
    reporter: Reporter,
    split: Split = "test",
) -> Evaluation:
    """Evaluate a configuration's policy, or the checkpoint in `weights`, outside of training.

    Raises:
        ConfigError: the configuration does not work out.
        NotReadyError: the environment lacks something.
    """
    count = config.eval.samples
    async with _opened(config, weights, split, count, reporter.note) as (host, samples):
        evaluation = await evaluate(
            host,
            samples,
            name="eval",
            seed=derive_seed(config.seed, "eval"),
            temperature=config.eval.temperature,
            reporter=reporter,
        )
    notes = FailureNotes(reporter)
    notes.look(t for group in evaluation.groups for t in group.trajectories)
    return evaluation


async def roll_out_samples(
    config: RunConfig, *, weights: Path | None, split: Split, count: int, say: Callable[[str], None]
) -> list[Group]:
    """Roll out the first `count` samples of a split once each, as training would sample them.

    `say` is told of what waits for long, in a thread of its own.

    Raises:
        ConfigError: the configuration does not work out.
        NotReadyError: the environment lacks something.
    """
    async with _opened(config, weights, split, count, say) as (host, samples):
        return [
            await host.rollout.run_group(
                sample, group_id=f"{split}-{i}", size=1, seed=derive_seed(config.seed, split, i)
            )
            for i, sample in enumerate(samples)
        ]


@asynccontextmanager
async def _opened(
    config: RunConfig, weights: Path | None, split: Split, count: int, say: Callable[[str], None]
) -> AsyncIterator[tuple[RolloutHost, Sequence[Sample]]]:
    plugins = Plugins.load(config)
    samples = plugins.samples(split)[:count]
    with Watch(config.watch, say):
        async with open_rollout(config, weights=weights, plugins=plugins, samples=samples) as host:
            yield host, samples


def write_output(path: Path, groups: Sequence[Group]) -> None:
    """Add groups to a file of traces.

    Raises:
        OSError: it cannot be written.
    """
    for group in groups:
        append_trace(path, Trace(step=0, split="eval", fate="eval", group=group))
