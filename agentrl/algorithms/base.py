"""What an RL algorithm is to the trainer, and the tensors it works on.

The trainer owns the model, the batches and the optimizer; an algorithm only says what a
trajectory's tokens are worth and what the loss is. Subclass `RLAlgorithm` to write your own.

Shapes: B sequences, T tokens. `logprobs_BT[b, t]` belongs to token t itself, given those before.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from agentrl.contracts.trajectory import Group

Metrics = dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class LossInputs:
    """One micro-batch as the loss sees it. Only positions with mask 1 may matter.

    `old_logprobs_BT` are those of the policy before the update: the engine's, or the trainer's
    own where a rollout correction is configured; then `importance_weights_BT` multiply the policy
    gradient of each token. `ref_logprobs_BT` are those of the reference, None when no penalty is
    configured.
    """

    response_mask_BT: torch.Tensor
    old_logprobs_BT: torch.Tensor
    advantages_BT: torch.Tensor
    ref_logprobs_BT: torch.Tensor | None = None
    importance_weights_BT: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MinibatchTotals:
    """Counts over the whole minibatch, so that a sum over micro-batches is the exact mean."""

    num_tokens: int
    num_sequences: int


class RLAlgorithm(ABC):
    """Base of every algorithm."""

    needs_reference: bool = False
    """Whether `compute_loss` wants `ref_logprobs_BT`."""

    @abstractmethod
    def compute_advantages(self, group: Group) -> list[float | None]:
        """Return one advantage per trajectory of the group; None leaves it out of the update."""

    @abstractmethod
    def compute_loss(
        self, logprobs_BT: torch.Tensor, inputs: LossInputs, totals: MinibatchTotals
    ) -> tuple[torch.Tensor, Metrics]:
        """Return this micro-batch's share of the loss, and metrics that add up over shares."""

    def before_train_step(self, step: int, groups: Sequence[Group]) -> None:
        """Look at the rollouts of a step before the policy learns from them."""
        return None

    def after_train_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Look at the metrics of a step after the update."""
        return None

    def get_metrics(self) -> Metrics:
        """Return further metrics to record for the step."""
        return {}
