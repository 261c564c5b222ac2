"""Imitation: batches of demonstrations until the configured steps are done."""

import asyncio
from functools import partial

from agentrl.data.order import index_at
from agentrl.learner.imitation import imitate, render_demonstrations
from agentrl.trainer.session import Session


async def run(session: Session) -> None:
    """Imitate the demonstrations from where the run stands; ends with a checkpoint.

    Raises:
        ConfigError: there are no demonstrations to use.
        RunError: the loss or the gradient is not finite.
    """
    run, plugins, config = session.run, session.host.plugins, session.config.sft
    progress, optimizer = run.progress, session.optimizer
    samples = await run.compute.run(
        partial(
            render_demonstrations,
            plugins.demonstrations(),
            session.host.renderer,
            plugins.schemas,
            max_length=config.max_length,
        )
    )
    run.reporter.phase_started("sft", config.steps)
    metrics: dict[str, float] = {}
    limit = session.config.train.max_tokens_per_microbatch
    while progress.sft_step < config.steps:
        # A cancellation enters here, not after the last step, whose optimizer is discarded.
        await asyncio.sleep(0)
        first = progress.sft_step * config.batch_size
        places = range(first, first + config.batch_size)
        batch = [samples[index_at(p, len(samples), seed=session.config.seed)] for p in places]
        step = partial(imitate, session.policy.model, optimizer, batch, max_tokens=limit)
        metrics = await run.compute.run(step)
        progress.sft_step += 1
        run.folder.record_metrics(progress.sft_step, "sft", metrics)
        run.reporter.step_finished(progress.sft_step, metrics)
        if run.is_due(progress.sft_step) and progress.sft_step < config.steps:
            await run.save()
    progress.phase = "step"
    session.begin_phase()
    await run.save()
    run.reporter.phase_ended("sft", metrics)
