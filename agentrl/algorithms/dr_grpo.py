"""Dr. GRPO: GRPO without its two biases.

Source: Liu et al. (arXiv:2503.20783). Dividing by a response's length favors long wrong answers,
dividing by the group's deviation favors questions that are nearly always or never answered. So
advantages are not scaled, and the token losses are summed and divided by a constant: sequences
times `normalizer_tokens`. A mean over the tokens of a batch (`token_mean`) is not that: it weighs
a token by how long the other answers happened to be.
"""

from collections.abc import Iterator, Sequence

from pydantic import PositiveFloat, PositiveInt
from typing_extensions import override

from agentrl.algorithms.advantage import credited, group_relative
from agentrl.algorithms.base import Batch, Loss, MinibatchTotals, RLAlgorithm, TokenScores
from agentrl.algorithms.loss import (
    KLConfig,
    clipped_loss,
    kl_penalty,
    log_ratio,
    ratio_shares,
    share_metrics,
    trained,
    weighted,
)
from agentrl.algorithms.samples import TrainSample
from agentrl.config.train import AlgorithmConfig
from agentrl.contracts.trajectory import Group


class DrGRPOConfig(AlgorithmConfig):
    """GRPO done right."""

    type: str = "dr_grpo"
    clip_low: PositiveFloat = 0.2
    clip_high: PositiveFloat = 0.2
    kl: KLConfig = KLConfig()
    normalizer_tokens: PositiveInt = 1024
    """What a sequence's summed loss is divided by; the same for every batch of a run. The paper
    and TRL take the most tokens that a response may have (`rollout.max_response_tokens`)."""


class DrGRPO(RLAlgorithm):
    """GRPO with unscaled advantages and a constant normaliser."""

    Options = DrGRPOConfig
    options: DrGRPOConfig

    def __init__(self, options: DrGRPOConfig) -> None:
        super().__init__(options)
        if options.kl.coefficient > 0:
            self.needs = frozenset({"reference"})

    @override
    def credit(self, groups: Sequence[Group]) -> Iterator[TrainSample]:
        for group in filter(self.has_signal, groups):
            rewards = [trajectory.reward for trajectory in group.kept]
            yield from credited(group, group_relative(rewards, scale_by_std=False))

    @override
    def compute_loss(self, scores: TokenScores, batch: Batch, totals: MinibatchTotals) -> Loss:
        options = self.options
        bounds = {"clip_low": options.clip_low, "clip_high": options.clip_high}
        constant = totals.num_sequences * options.normalizer_tokens
        log_ratio_RT = log_ratio(scores, batch)
        pg_RT = weighted(clipped_loss(log_ratio_RT, batch.advantages_RT, **bounds), batch)
        loss = trained(pg_RT, batch).sum() / constant
        shares = {"pg_loss": loss}
        if (kl_RT := kl_penalty(scores, batch, options.kl)) is not None:
            shares["kl_loss"] = trained(kl_RT, batch).sum() / constant
            loss = loss + options.kl.coefficient * shares["kl_loss"]
        shares |= ratio_shares(log_ratio_RT, batch, totals, **bounds)
        return Loss(value=loss, metrics=share_metrics(shares, batch, totals))
