"""Imitation: supervised fine-tuning on demonstrations, the warm start before reinforcement.

The loss is the mean cross-entropy of the assistant's tokens over the whole batch, however it is
cut into micro-batches. Demonstrations are rendered from the pieces that rollouts are made of.
"""

import logging
from collections.abc import Sequence

import numpy as np

from agentrl.algorithms.base import Batch, Loss, TokenScores
from agentrl.algorithms.samples import TrainSample
from agentrl.contracts.metric import Metric, reduce_metrics
from agentrl.contracts.task import Demonstration
from agentrl.contracts.tool import ToolDict
from agentrl.errors import ConfigError
from agentrl.learner.batch import Streams, micro_batches
from agentrl.learner.models import Model
from agentrl.learner.optimizer import Optimizer
from agentrl.learner.step import take_step
from agentrl.templates.render import Renderer

logger = logging.getLogger(__name__)


def render_demonstrations(
    demonstrations: Sequence[Demonstration],
    renderer: Renderer,
    schemas: dict[str, ToolDict],
    *,
    max_length: int,
) -> list[TrainSample]:
    """Turn dialogues into samples; those over `max_length` tokens are left out.

    Raises:
        ConfigError: there are none, all are too long, or one names an unknown tool.
    """
    if not demonstrations:
        raise ConfigError(
            "sft.steps is set, but the task has no demonstrations; set sft.steps=0, or return "
            "some from the task's `demonstrations`"
        )
    samples: list[TrainSample] = []
    left_out = 0
    for demonstration in demonstrations:
        unknown = [name for name in demonstration.tools if name not in schemas]
        if unknown:
            raise ConfigError(
                f"a demonstration uses the tools {unknown}; registered are {sorted(schemas)}"
            )
        tools = [schemas[name] for name in demonstration.tools]
        pairs = renderer.conversation(demonstration.messages, tools)
        fits = all(len(ids) <= max_length for ids, _ in pairs)
        left_out += not fits
        samples += [_sample(ids, mask) for ids, mask in pairs if fits]
    if left_out:
        logger.warning("%d demonstrations longer than %d tokens left out", left_out, max_length)
    if not samples:
        raise ConfigError(f"every demonstration is longer than sft.max_length={max_length} tokens")
    return samples


def imitate(
    model: Model, optimizer: Optimizer, samples: Sequence[TrainSample], *, max_tokens: int
) -> dict[str, float]:
    """Take one optimizer step on a batch of demonstrations.

    Raises:
        RunError: the loss or the gradient is not finite.
    """
    streams, everything = Streams.of(samples), np.arange(len(samples))
    num_tokens = int(streams.loss_mask_N.sum())
    learning_rate = optimizer.learning_rate
    packed = model.packs
    plan = micro_batches(streams.lengths_S, everything, max_tokens=max_tokens, packed=packed)

    def cross_entropy(scores: TokenScores, batch: Batch) -> Loss:
        share = -scores.logprobs_RT.sum() / num_tokens
        return Loss(value=share, metrics={"loss": Metric(value=share.item(), reduce="sum")})

    batches = (streams.batch(part, packed=packed, device=model.device) for part in plan)
    parts = take_step(model, optimizer, batches, cross_entropy, section="sft.optimizer")
    metrics = {f"sft/{name}": value for name, value in reduce_metrics(parts).items()}
    return metrics | {"sft/lr": learning_rate, "sft/tokens": float(len(streams.token_ids_N))}


def _sample(ids: Sequence[int] | np.ndarray, mask: Sequence[int] | np.ndarray) -> TrainSample:
    return TrainSample(token_ids=np.asarray(ids, np.int32), loss_mask=np.asarray(mask, np.uint8))
