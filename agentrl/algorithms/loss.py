"""Pieces of losses: the clipped surrogate, the KL penalty, and their aggregation.

Shapes: R rows of T tokens, S segments.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import NonNegativeFloat

from agentrl.algorithms.base import Batch, MinibatchTotals, TokenScores
from agentrl.config.base import Section
from agentrl.contracts.metric import Metric

Aggregation = Literal["token_mean", "sequence_mean"]
KLEstimator = Literal["k1", "k2", "k3"]


class KLConfig(Section):
    """The optional penalty that holds the policy near the reference it started from."""

    coefficient: NonNegativeFloat = 0.0
    """0 switches it off, and no reference model is kept."""
    estimator: KLEstimator = "k3"
    """`k3` or `k2`; `k1` estimates the divergence but as a loss its mean gradient is zero."""


def log_ratio(scores: TokenScores, batch: Batch) -> torch.Tensor:
    """Return `log(policy / old policy)` of every token, 0 where the mask is.

    Chosen before anything is computed from it: a zero gradient times inf would be NaN.
    """
    return trained(scores.logprobs_RT, batch) - trained(batch.old_logprobs_RT, batch)


def trained(values_RT: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the values where the mask is 1, and 0 elsewhere, whatever stands there."""
    return torch.where(batch.loss_mask_RT.bool(), values_RT, 0.0)


def clipped_loss(
    log_ratio_RT: torch.Tensor, advantages_RT: torch.Tensor, *, clip_low: float, clip_high: float
) -> torch.Tensor:
    """Return PPO's pessimistic surrogate (arXiv:1707.06347, eq. 7), negated, element by element.

    The bounds of the ratio are `1 - clip_low` and `1 + clip_high` (separate as in DAPO,
    arXiv:2503.14476).
    """
    ratio_RT = log_ratio_RT.exp()
    clipped_RT = ratio_RT.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio_RT * advantages_RT, clipped_RT * advantages_RT)


def weighted(loss_RT: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Multiply a loss by the tokens' importance weights, where there are some."""
    return loss_RT if batch.weights_RT is None else loss_RT * batch.weights_RT


def kl_estimate(
    logprobs: torch.Tensor, ref_logprobs: torch.Tensor, estimator: KLEstimator
) -> torch.Tensor:
    """Return an estimate of KL(policy || reference) for every token of the policy's samples.

    J. Schulman, "Approximating KL Divergence" (2020). With r = ref_logprob - logprob: k1 = -r
    (unbiased, high variance; its gradient is zero on average), k2 = r^2/2 (biased, but with the
    divergence's own gradient), k3 = e^r - 1 - r (unbiased, never negative; its gradient is that of
    KL(reference || policy)).
    """
    log_ratio = ref_logprobs - logprobs
    if estimator == "k1":
        return -log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2
    return log_ratio.exp() - 1 - log_ratio


def kl_penalty(scores: TokenScores, batch: Batch, config: KLConfig) -> torch.Tensor | None:
    """Return the estimate per token; None where no penalty is configured."""
    if config.coefficient == 0 or batch.ref_logprobs_RT is None:
        return None
    reference_RT = trained(batch.ref_logprobs_RT, batch)
    return kl_estimate(trained(scores.logprobs_RT, batch), reference_RT, config.estimator)


def segment_sums(values_RT: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the sum of the trained values of each segment, `[S]`."""
    places_N = batch.segment_ids_RT.clamp(min=0).flatten()
    sums_S = values_RT.new_zeros(batch.num_segments)
    return sums_S.index_add(0, places_N, trained(values_RT, batch).flatten())


def segment_means(values_RT: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the mean of the trained values of each segment, `[S]`."""
    lengths_S = segment_sums(torch.ones_like(values_RT), batch).clamp(min=1)
    return segment_sums(values_RT, batch) / lengths_S


def aggregate(
    values_RT: torch.Tensor, batch: Batch, totals: MinibatchTotals, aggregation: Aggregation
) -> torch.Tensor:
    """Return a micro-batch's share of the minibatch mean of the trained values.

    `token_mean` weighs all tokens alike; `sequence_mean` averages each sequence first, over all of
    its branches.
    """
    if aggregation == "token_mean":
        return trained(values_RT, batch).sum() / totals.num_tokens
    means_S = segment_sums(values_RT, batch) / batch.sequence_tokens_S.clamp(min=1)
    return means_S.sum() / totals.num_sequences


def share_metrics(
    shares: Mapping[str, torch.Tensor], batch: Batch, totals: MinibatchTotals
) -> dict[str, Metric]:
    """Report shares of minibatch means: weighted by tokens, they add up to the mean itself."""
    weight = float(batch.num_trained)
    # One transfer from the device for all of them.
    values = torch.stack([share.detach().double() for share in shares.values()]).tolist()
    scale = totals.num_tokens / max(weight, 1.0)
    return {
        f"actor/{name}": Metric(value=value * scale, weight=weight)
        for name, value in zip(shares, values, strict=True)
    }
