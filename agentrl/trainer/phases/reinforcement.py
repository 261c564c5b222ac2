"""Reinforcement: take > learn > record > sync, until the configured steps are done.

A cancellation takes effect before a step learns or after it is recorded, so a checkpoint finds the
run either before a step or after it. That is why the record comes before the sync.
"""

import time
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial

from agentrl.contracts.trajectory import Group
from agentrl.errors import RunError
from agentrl.learner.learner import Learner
from agentrl.learner.models import open_reference
from agentrl.rollout.metrics import age_metrics, rollout_metrics, signal_metrics, timing_metrics
from agentrl.trainer.feed import GroupFeed
from agentrl.trainer.session import Session

Metrics = dict[str, float]


async def run(session: Session, steps: int) -> None:
    """Improve the policy by what its rollouts are rewarded with.

    Raises:
        RunError: a loss is not finite, the engine failed, or there is nothing to learn from.
    """
    run, progress = session.run, session.run.progress
    await session.sync.publish()
    await session.evaluator.evaluate_if_due(steps)
    if progress.step >= steps:
        await run.save()
        return
    learner = await run.compute.run(partial(_learner, session))
    run.reporter.phase_started("train", steps)
    metrics: Metrics = {}
    feed = GroupFeed(
        session.host.rollout,
        session.samples,
        session.config,
        progress,
        has_signal=session.policy.algorithm.has_signal,
        record=session.recorder.record,
    )
    async with aclosing(feed):
        while progress.step < steps:
            metrics = await _step(session, feed, learner)
            await session.evaluator.evaluate_if_due(steps)
            if run.is_due(progress.step) or progress.step == steps:
                await run.save()
    run.reporter.phase_ended("train", metrics)


async def _step(session: Session, feed: GroupFeed, learner: Learner) -> Metrics:
    """Take one step, from samples to weights that the engine has."""
    run, sync = session.run, session.sync
    step, began = run.progress.step + 1, time.monotonic()
    taken = await feed.take(run.progress.step)
    groups = list(taken.values())
    async with session.recorder.recorded(groups, step=step, fate="trained"):
        if session.engine.failure is not None:
            await run.stop(session.engine.failure)
        _check_not_empty(session, groups)
        rolled_out = time.monotonic()
        metrics = await run.needs(_describe(session, groups)) | feed.metrics()
        async with sync.updating(step):
            metrics |= await run.compute.run(partial(learner.learn, step, groups))
        metrics |= timing_metrics(groups, began, rolled_out, time.monotonic())
        run.progress.step = step
        run.progress.pending = [p for p in run.progress.pending if p not in taken]
        session.tally.count(groups, executions=session.host.services.executions)
        metrics["sandbox/executions"] = float(session.tally.executions)
        metrics |= session.engine.drain_metrics() | sync.parity
        run.folder.record_metrics(step, "train", metrics)
        run.reporter.step_finished(step, metrics)
    await sync.publish()
    return metrics


async def _describe(session: Session, groups: Sequence[Group]) -> Metrics:
    return (
        rollout_metrics(groups, session.host.plugins.succeeded)
        | signal_metrics(groups, session.policy.algorithm.has_signal)
        | age_metrics(groups, session.run.progress.step)
    )


def _check_not_empty(session: Session, groups: Sequence[Group]) -> None:
    """Stop when step after step has nothing to learn from.

    Raises:
        RunError: `train.max_empty_steps` in a row had every trajectory dropped.
    """
    progress = session.run.progress
    if any(group.kept for group in groups):
        progress.empty_steps = 0
        return
    progress.empty_steps += 1
    if progress.empty_steps >= session.config.train.max_empty_steps:
        errors = [t.error for group in groups for t in group.trajectories if t.error]
        raise RunError(
            f"all trajectories of {progress.empty_steps} steps in a row were dropped; "
            f"the last error was: {errors[-1] if errors else 'none'}"
        )


def _learner(session: Session) -> Learner:
    config, policy, run = session.config, session.policy, session.run
    reference = None
    if "reference" in policy.algorithm.needs:
        reference = open_reference(run.folder.path / "reference", policy.model, run.progress.step)
    return Learner(
        policy.model,
        policy.algorithm,
        session.optimizer,
        config.train,
        temperature=config.rollout.sampling.temperature,
        seed=config.seed,
        reference=reference,
    )
