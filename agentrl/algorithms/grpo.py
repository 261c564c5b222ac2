"""GRPO: group-relative advantages, a clipped ratio, an optional KL penalty.

Source: DeepSeekMath (arXiv:2402.03300), which averages each sequence first (`sequence_mean`);
`token_mean` with `clip_high` above `clip_low` is DAPO's loss (arXiv:2503.14476). Neither is
Dr. GRPO's, which divides by a constant: see `dr_grpo`.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import PositiveFloat
from torch import Tensor
from typing_extensions import override

from agentrl.algorithms.advantage import credited, group_relative
from agentrl.algorithms.base import Batch, Loss, MinibatchTotals, RLAlgorithm, TokenScores
from agentrl.algorithms.loss import (
    KLConfig,
    aggregate,
    clipped_loss,
    kl_penalty,
    log_ratio,
    share_metrics,
    weighted,
)
from agentrl.algorithms.samples import TrainSample
from agentrl.config.train import AlgorithmConfig
from agentrl.contracts.trajectory import Group


class ClippedConfig(AlgorithmConfig):
    """What GRPO and its relatives share."""

    clip_low: PositiveFloat = 0.2
    clip_high: PositiveFloat = 0.2
    kl: KLConfig = KLConfig()
    skip_zero_variance: bool = True
    """Leave groups whose rewards are all equal out of the update (they have no signal)."""


class GRPOConfig(ClippedConfig):
    """Group-relative policy optimisation."""

    type: str = "grpo"
    scale_by_std: bool = True
    """Divide the advantage by the group's standard deviation."""
    aggregation: Literal["token_mean", "sequence_mean"] = "token_mean"


class Clipped(RLAlgorithm):
    """Group-relative advantages and PPO's surrogate; subclasses say how both are scaled."""

    options: ClippedConfig

    def __init__(self, options: ClippedConfig) -> None:
        super().__init__(options)
        if options.kl.coefficient > 0:
            self.needs = frozenset({"reference"})

    def advantages(self, rewards: Sequence[float]) -> list[float]:
        """Return what the kept trajectories of a group are worth, from their rewards."""
        return group_relative(rewards, scale_by_std=False)

    def average(self, values_RT: Tensor, batch: Batch, totals: MinibatchTotals) -> Tensor:
        """Return a micro-batch's share of what the minibatch's loss is."""
        return aggregate(values_RT, batch, totals, "token_mean")

    @override
    def credit(self, groups: Sequence[Group]) -> Iterator[TrainSample]:
        for group in groups:
            if not self.options.skip_zero_variance or self.has_signal(group):
                yield from credited(group, self.advantages([t.reward for t in group.kept]))

    @override
    def compute_loss(self, scores: TokenScores, batch: Batch, totals: MinibatchTotals) -> Loss:
        options = self.options
        bounds = {"clip_low": options.clip_low, "clip_high": options.clip_high}
        log_ratio_RT = log_ratio(scores, batch)
        pg_RT = weighted(clipped_loss(log_ratio_RT, batch.advantages_RT, **bounds), batch)
        loss = self.average(pg_RT, batch, totals)
        shares = {"pg_loss": loss}
        if (kl_RT := kl_penalty(scores, batch, options.kl)) is not None:
            shares["kl_loss"] = self.average(kl_RT, batch, totals)
            loss = loss + options.kl.coefficient * shares["kl_loss"]
        log_ratio_RT = log_ratio_RT.detach()
        ratio_RT = log_ratio_RT.exp()
        outside_RT = (ratio_RT < 1 - options.clip_low) | (ratio_RT > 1 + options.clip_high)
        for name, values_RT in (("ppo_kl", -log_ratio_RT), ("clip_frac", outside_RT.float())):
            shares[name] = aggregate(values_RT, batch, totals, "token_mean")
        return Loss(value=loss, metrics=share_metrics(shares, batch, totals))


class GRPO(Clipped):
    """Group-relative policy optimisation."""

    Options = GRPOConfig
    options: GRPOConfig

    @override
    def advantages(self, rewards: Sequence[float]) -> list[float]:
        return group_relative(rewards, scale_by_std=self.options.scale_by_std)

    @override
    def average(self, values_RT: Tensor, batch: Batch, totals: MinibatchTotals) -> Tensor:
        return aggregate(values_RT, batch, totals, self.options.aggregation)
