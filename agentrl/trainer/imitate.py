"""The SFT phase of a run: batches of demonstrations until the configured steps are done."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from agentrl.data.order import take
from agentrl.learner.sft import render_demonstrations, sft_step

if TYPE_CHECKING:
    from agentrl.trainer.trainer import Trainer


async def imitate(trainer: "Trainer") -> None:
    """Imitate the demonstrations from where the run stands; ends with a checkpoint.

    Raises:
        ConfigError: there are no demonstrations to use.
        RunError: the loss or the gradient is not finite.
    """
    config, progress, runtime = trainer.config.sft, trainer.progress, trainer.runtime
    sequences = render_demonstrations(
        runtime.task.demonstrations(),
        runtime.renderer,
        runtime.schemas,
        max_length=config.max_length,
    )
    trainer.reporter.phase_started("sft", config.steps)
    metrics: dict[str, float] = {}
    while progress.sft_step < config.steps:
        # A cancellation enters here, not after the last step, whose optimizer is discarded.
        await asyncio.sleep(0)
        start = progress.sft_step * config.batch_size
        chosen = take(len(sequences), start=start, size=config.batch_size, seed=trainer.config.seed)
        batch = [sequences[i] for i in chosen]
        limit = trainer.config.train.max_tokens_per_microbatch
        step = partial(sft_step, runtime.policy, trainer.optimizer, batch, max_tokens=limit)
        metrics = await trainer.compute.run(step)
        progress.sft_step += 1
        trainer.run_dir.record_metrics(progress.sft_step, "sft", metrics)
        trainer.reporter.step_finished(progress.sft_step, metrics)
        if trainer.is_due(progress.sft_step) and progress.sft_step < config.steps:
            trainer.save()
    trainer.begin_reinforcement()
    trainer.reporter.phase_ended("sft", metrics)
