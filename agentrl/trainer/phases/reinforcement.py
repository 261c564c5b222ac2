"""Reinforcement: the loop's steps, evaluations and checkpoints, until all are done."""

import time
from functools import partial

from agentrl.flow.run import running
from agentrl.learner.learner import Learner
from agentrl.learner.models import open_reference
from agentrl.trainer.graph import grpo
from agentrl.trainer.loop import Loop, Metrics
from agentrl.trainer.session import Session


async def run(session: Session, steps: int) -> None:
    """Improve the policy by what its rollouts are rewarded with.

    Raises:
        RunError: a loss is not finite, the engine failed, or there is nothing to learn from.
    """
    run, progress, config = session.run, session.run.progress, session.config
    await session.sync.publish()
    await session.evaluator.evaluate_if_due(steps)
    if progress.step >= steps:
        await run.save()
        return
    loop = Loop(session, await run.compute.run(partial(_learner, session)))
    run.reporter.phase_started("train", steps)
    metrics = Metrics()
    async with running(
        grpo(config, loop),
        progress,
        version=progress.step,
        told=loop.told,
        max_refusals=config.flow.max_refusals,
    ) as flow:
        loop.drain = flow.drain_metrics
        while progress.step < steps:
            loop.began = time.monotonic()
            metrics = (await flow.step())["finish"]
            await session.evaluator.evaluate_if_due(steps)
            if run.is_due(progress.step) or progress.step == steps:
                await run.save()
    run.reporter.phase_ended("train", metrics)


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
