"""What an RL algorithm is to the learner, and the tensors it works on.

    groups -> credit -> TrainSample -> (packed by the learner) -> Batch -> compute_loss -> Loss

The learner owns models, batches and the optimizer; an algorithm says what each token is worth and
what the loss is. Subclass `RLAlgorithm`, or a shipped algorithm, to write your own.

Shapes: R rows of T tokens; a row holds one or more segments, each one sample. `x_RT[r, t]` belongs
to token t itself, given those before it in its segment.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch

from agentrl.algorithms.advantage import has_signal
from agentrl.algorithms.samples import TrainSample
from agentrl.config.train import AlgorithmConfig
from agentrl.contracts.metric import Metric
from agentrl.contracts.trajectory import Group

Role = Literal["reference", "critic", "teacher"]
"""Another model that scores the samples before the policy learns from them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One micro-batch on the device. Only positions where `loss_mask_RT` is 1 may matter.

    `position_ids_RT` begin at 0 in every segment; `segment_ids_RT` number the segments, -1 is
    padding. `old_logprobs_RT` are those of the policy before the update: the engine's, or the
    trainer's own where a correction is configured; then `weights_RT` multiply the policy gradient
    of each token. What no role or algorithm gave is None.
    """

    input_ids_RT: torch.Tensor
    position_ids_RT: torch.Tensor
    segment_ids_RT: torch.Tensor
    loss_mask_RT: torch.Tensor
    old_logprobs_RT: torch.Tensor
    advantages_RT: torch.Tensor
    ref_logprobs_RT: torch.Tensor | None = None
    values_RT: torch.Tensor | None = None
    returns_RT: torch.Tensor | None = None
    weights_RT: torch.Tensor | None = None
    teacher_logprobs_RT: torch.Tensor | None = None
    sequence_tokens_S: torch.Tensor
    """For each segment, the trained tokens of its whole sequence, other branches included."""
    segment_lengths: tuple[int, ...]
    num_trained: int
    """Positions with mask 1."""

    @property
    def num_segments(self) -> int:
        """How many samples the rows hold."""
        return len(self.segment_lengths)

    @property
    def is_packed(self) -> bool:
        """Whether a row holds more than one segment."""
        return self.num_segments > len(self.input_ids_RT)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenScores:
    """What the model says about a batch's trained tokens, in float32; 0 elsewhere.

    `entropy_RT` is that of the distribution each token was drawn from, without gradient.
    """

    logprobs_RT: torch.Tensor
    entropy_RT: torch.Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class MinibatchTotals:
    """Counts over the whole minibatch, so that a sum over micro-batches is the exact mean.

    A sequence is a trajectory, however many branches it has.
    """

    num_tokens: int
    num_sequences: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """A micro-batch's share of the minibatch's loss, and what there is to report."""

    value: torch.Tensor
    metrics: dict[str, Metric] = field(default_factory=dict)


class RLAlgorithm(ABC):
    """Base of every algorithm. Hooks are called once a step, in the order of their definition."""

    Options: ClassVar[type[AlgorithmConfig]] = AlgorithmConfig
    """The typed options that stand beside `type` in the configuration."""
    needs: frozenset[Role] = frozenset()
    """Which roles score the samples between `credit` and `compute_loss`."""

    def __init__(self, options: Any) -> None:
        self.options = options

    def has_signal(self, group: Group) -> bool:
        """Whether there is something to learn from a group: its kept rewards differ."""
        return has_signal([trajectory.reward for trajectory in group.kept])

    def before_train_step(self, step: int, groups: Sequence[Group]) -> None:
        """Look at the rollouts of a step before the policy learns from them."""
        return None

    @abstractmethod
    def credit(self, groups: Sequence[Group]) -> Iterator[TrainSample]:
        """Yield what to learn from, with `advantages` for every token."""

    @abstractmethod
    def compute_loss(self, scores: TokenScores, batch: Batch, totals: MinibatchTotals) -> Loss:
        """Return this micro-batch's share of the loss."""

    def after_train_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Look at the metrics of a step after the update."""
        return None

    def get_metrics(self) -> dict[str, Metric]:
        """Return further metrics to record for the step."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on as if it had never stopped."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        return None
