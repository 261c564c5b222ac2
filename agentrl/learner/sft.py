"""Supervised fine-tuning on demonstrations: the warm start before reinforcement.

The loss is the mean cross-entropy of the assistant's tokens over the whole batch, however it is
cut into micro-batches. Demonstrations are rendered from the pieces that rollouts are made of.
"""

import logging
from collections.abc import Sequence

import torch

from agentrl.contracts.task import Demonstration
from agentrl.errors import ConfigError, RunError
from agentrl.learner.batch import TrainSequence, collate, micro_batches
from agentrl.learner.models import Policy
from agentrl.learner.optimizer import Optimizer
from agentrl.learner.scores import token_logprobs
from agentrl.rollout.render import Renderer
from agentrl.rollout.schemas import ToolDict

logger = logging.getLogger(__name__)


def render_demonstrations(
    demonstrations: Sequence[Demonstration],
    renderer: Renderer,
    schemas: dict[str, ToolDict],
    *,
    max_length: int,
) -> list[TrainSequence]:
    """Turn dialogues into sequences; those over `max_length` tokens are left out.

    Raises:
        ConfigError: there are none, all are too long, or one names an unknown tool.
    """
    if not demonstrations:
        raise ConfigError(
            "sft.steps is set, but the task has no demonstrations; set sft.steps=0, or return "
            "some from the task's `demonstrations`"
        )
    sequences = []
    left_out = 0
    for demonstration in demonstrations:
        unknown = [name for name in demonstration.tools if name not in schemas]
        if unknown:
            raise ConfigError(
                f"a demonstration uses the tools {unknown}; registered are {sorted(schemas)}"
            )
        tools = [schemas[name] for name in demonstration.tools]
        branches = renderer.conversation(demonstration.messages, tools)
        if all(len(ids) <= max_length for ids, _ in branches):
            sequences += [
                TrainSequence(token_ids=tuple(ids.tolist()), mask=tuple(mask.tolist()))
                for ids, mask in branches
            ]
        else:
            left_out += 1
    if left_out:
        logger.warning("%d demonstrations longer than %d tokens left out", left_out, max_length)
    if not sequences:
        raise ConfigError(f"every demonstration is longer than sft.max_length={max_length} tokens")
    return sequences


def sft_step(
    policy: Policy, optimizer: Optimizer, sequences: Sequence[TrainSequence], *, max_tokens: int
) -> dict[str, float]:
    """Take one optimizer step on a batch.

    Raises:
        RunError: the loss or the gradient is not finite.
    """
    policy.model.train()
    num_tokens = sum(s.num_trained for s in sequences)
    total = 0.0
    learning_rate = optimizer.learning_rate
    for rows in micro_batches(sequences, max_tokens=max_tokens):
        batch = collate(rows, policy.device)
        logprobs_BT, _ = token_logprobs(policy.model, batch, temperature=1.0)
        loss = -torch.where(batch.mask_BT > 0, logprobs_BT, 0.0).sum() / num_tokens
        if not torch.isfinite(loss):
            raise RunError(f"SFT: the loss is {loss.item()}; lower sft.optimizer.learning_rate")
        torch.autograd.backward(loss)
        optimizer.accumulate()
        total += loss.item()
    norm = optimizer.step()
    policy.model.eval()
    return {
        "sft/loss": total,
        "sft/grad_norm": norm,
        "sft/lr": learning_rate,
        "sft/tokens": float(sum(len(s.token_ids) for s in sequences)),
    }
