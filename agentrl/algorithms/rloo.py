"""RLOO: REINFORCE with the mean reward of a rollout's siblings as its baseline.

Source: Ahmadian et al. (arXiv:2402.14740). The whole sequence is one action: its log-probability
is the sum over its tokens, nothing is averaged over length or divided by a deviation. The paper
takes one on-policy step and needs no ratio; TRL, which may take several, clips the ratio of whole
sequences as PPO does. Both subtract a KL term from the reward, which is left out here. Where
a chat template rewrites history, the clipped ratio is one a branch.

Shapes: R rows of T tokens, S segments.
"""

from collections.abc import Iterator, Sequence

from pydantic import PositiveFloat
from typing_extensions import override

from agentrl.algorithms.advantage import credited, leave_one_out
from agentrl.algorithms.base import Batch, Loss, MinibatchTotals, RLAlgorithm, TokenScores
from agentrl.algorithms.loss import (
    aggregate,
    clipped_loss,
    log_ratio,
    segment_means,
    segment_sums,
    share_metrics,
    trained,
    weighted,
)
from agentrl.algorithms.samples import TrainSample
from agentrl.config.train import AlgorithmConfig
from agentrl.contracts.trajectory import Group


class RLOOConfig(AlgorithmConfig):
    """REINFORCE leave-one-out."""

    type: str = "rloo"
    clip: PositiveFloat | None = None
    """Bound of the sequence's ratio, 1 +- this, for several optimizer steps on one batch (TRL:
    0.2). None: plain REINFORCE, as in the paper."""


class RLOO(RLAlgorithm):
    """REINFORCE leave-one-out. Advantages are constant over a sequence."""

    Options = RLOOConfig
    options: RLOOConfig

    @override
    def credit(self, groups: Sequence[Group]) -> Iterator[TrainSample]:
        for group in filter(self.has_signal, groups):
            yield from credited(group, leave_one_out([t.reward for t in group.kept]))

    @override
    def compute_loss(self, scores: TokenScores, batch: Batch, totals: MinibatchTotals) -> Loss:
        log_ratio_RT = log_ratio(scores, batch)
        if self.options.clip is None:
            logprobs_RT = trained(scores.logprobs_RT, batch)
            pg_RT = weighted(-batch.advantages_RT * logprobs_RT, batch)
            losses_S = segment_sums(pg_RT, batch)
        else:
            clip = {"clip_low": self.options.clip, "clip_high": self.options.clip}
            ratios_S = segment_sums(log_ratio_RT, batch)
            losses_S = clipped_loss(ratios_S, segment_means(batch.advantages_RT, batch), **clip)
            if batch.weights_RT is not None:
                # One ratio a sequence, so one weight: the mean of its tokens'.
                losses_S = losses_S * segment_means(batch.weights_RT, batch)
        loss = losses_S.sum() / totals.num_sequences
        moved = aggregate(-log_ratio_RT.detach(), batch, totals, "token_mean")
        shares = {"pg_loss": loss, "ppo_kl": moved}
        return Loss(value=loss, metrics=share_metrics(shares, batch, totals))
