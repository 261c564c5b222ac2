"""The one optimizer step: for reinforcement and imitation, and whatever learns from batches.

A gradient is accumulated over micro-batches, each with its share of one loss, so its value does
not depend on how the batch was cut. Dropout is off: it would make the policy that learns another
one than the policy that sampled.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from agentrl.algorithms.base import Batch, Loss, TokenScores
from agentrl.contracts.metric import Metric
from agentrl.errors import RunError
from agentrl.learner.attention import attending
from agentrl.learner.models import Model
from agentrl.learner.optimizer import Optimizer
from agentrl.learner.scores import score

LossFunction = Callable[[TokenScores, Batch], Loss]


def take_step(
    model: Model,
    optimizer: Optimizer,
    batches: Iterable[Batch],
    loss_fn: LossFunction,
    *,
    temperature: float = 1.0,
    section: str = "optimizer",
) -> list[dict[str, Metric]]:
    """Add up the gradients of `loss_fn` over micro-batches and take one optimizer step.

    Returns:
        The micro-batches' metrics and the step's `grad_norm`, to be reduced by the caller.

    Raises:
        RunError: the loss or the gradient is not finite; the weights are unchanged. The remedy
            names the configuration's `section`.
    """
    parts: list[dict[str, Metric]] = []
    with learning(model.model), attending(model.model, packed=model.packs):
        for batch in batches:
            loss = loss_fn(score(model.model, batch, temperature=temperature), batch)
            if not torch.isfinite(loss.value):
                raise RunError(
                    f"the loss is {loss.value.item()}; the weights are those before this "
                    f"minibatch. Lower {section}.learning_rate, or use model.dtype=float32"
                )
            torch.autograd.backward(loss.value)
            optimizer.accumulate()
            parts.append(loss.metrics)
    return [*parts, {"grad_norm": Metric(value=optimizer.step())}]


@contextmanager
def learning(model: Any) -> Iterator[None]:
    """Switch dropout off, and recomputation on where it is configured."""
    model.eval()
    layers = [
        module
        for module in model.modules()
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing
    ]
    for layer in layers:
        layer.training = True  # alone, not the modules in it
    try:
        yield
    finally:
        model.eval()
