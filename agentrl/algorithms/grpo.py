"""GRPO: group-relative advantages, a clipped ratio, an optional KL penalty.

Source: DeepSeekMath (arXiv:2402.03300), which averages each sequence first (`sequence_mean`);
`token_mean` with `clip_high` above `clip_low` is DAPO's loss (arXiv:2503.14476). Neither is
Dr. GRPO's, which divides by a constant: see `dr_grpo`.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import PositiveFloat
from typing_extensions import override

from agentrl.algorithms.advantage import credited, group_relative
from agentrl.algorithms.base import Batch, Loss, MinibatchTotals, RLAlgorithm, TokenScores
from agentrl.algorithms.loss import (
    KLConfig,
    aggregate,
    clipped_loss,
    kl_penalty,
    log_ratio,
    ratio_shares,
    share_metrics,
    weighted,
)
from agentrl.algorithms.samples import TrainSample
from agentrl.config.train import AlgorithmConfig
from agentrl.contracts.trajectory import Group


class GRPOConfig(AlgorithmConfig):
    """Group-relative policy optimisation."""

    type: str = "grpo"
    scale_by_std: bool = True
    """Divide the advantage by the group's standard deviation."""
    clip_low: PositiveFloat = 0.2
    clip_high: PositiveFloat = 0.2
    aggregation: Literal["token_mean", "sequence_mean"] = "token_mean"
    kl: KLConfig = KLConfig()
    skip_zero_variance: bool = True
    """Leave groups whose rewards are all equal out of the update (they have no signal)."""


class GRPO(RLAlgorithm):
    """Group-relative policy optimisation."""

    Options = GRPOConfig
    options: GRPOConfig

    def __init__(self, options: GRPOConfig) -> None:
        super().__init__(options)
        if options.kl.coefficient > 0:
            self.needs = frozenset({"reference"})

    @override
    def credit(self, groups: Sequence[Group]) -> Iterator[TrainSample]:
        for group in groups:
            if self.options.skip_zero_variance and not self.has_signal(group):
                continue
            rewards = [trajectory.reward for trajectory in group.kept]
            scale = self.options.scale_by_std
            yield from credited(group, group_relative(rewards, scale_by_std=scale))

    @override
    def compute_loss(self, scores: TokenScores, batch: Batch, totals: MinibatchTotals) -> Loss:
        options = self.options
        bounds = {"clip_low": options.clip_low, "clip_high": options.clip_high}
        log_ratio_RT = log_ratio(scores, batch)
        pg_RT = weighted(clipped_loss(log_ratio_RT, batch.advantages_RT, **bounds), batch)
        loss = aggregate(pg_RT, batch, totals, options.aggregation)
        shares = {"pg_loss": loss}
        if (kl_RT := kl_penalty(scores, batch, options.kl)) is not None:
            shares["kl_loss"] = aggregate(kl_RT, batch, totals, options.aggregation)
            loss = loss + options.kl.coefficient * shares["kl_loss"]
        shares |= ratio_shares(log_ratio_RT, batch, totals, **bounds)
        return Loss(value=loss, metrics=share_metrics(shares, batch, totals))
