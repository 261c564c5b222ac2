"""Correcting for the gap between the engine that sampled and the trainer that learns.

Engine and trainer compute one policy with different kernels and, with stale rollouts, different
weights, so the samples come from another distribution than the one the loss assumes. Importance
weights `trainer / engine` make up for that; bounding them keeps the variance down. Sources:
truncated importance sampling, Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You
Off-Policy RL Training"; masking out-of-bounds tokens, IcePop (Ring-1T, arXiv:2510.18855).

Shapes: N tokens of all samples end to end.
"""

import logging
from dataclasses import replace

import numpy as np
import torch

from agentrl.config.train import CorrectionConfig
from agentrl.contracts.metric import Metric
from agentrl.learner.batch import Streams

logger = logging.getLogger(__name__)

LARGE_GAP = 0.05
LARGEST_EXPONENT = 50.0


def corrected(streams: Streams, trainer_N: np.ndarray, config: CorrectionConfig) -> Streams:
    """Return the streams with the trainer's log-probabilities and bounded importance weights.

    `trainer_N` are of the weights before the update. Weights that are there are multiplied.
    """
    gap_N = np.zeros(len(trainer_N))
    kept_N = streams.loss_mask_N > 0
    np.subtract(trainer_N, streams.old_logprobs_N, out=gap_N, where=kept_N, dtype=np.float64)
    if config.level == "sequence":
        gap_N = streams.segments(gap_N)
    ratio_N = np.exp(np.minimum(gap_N, LARGEST_EXPONENT))
    if config.type == "truncate":
        weights_N = np.minimum(ratio_N, config.high)
    else:
        weights_N = np.where((config.low <= ratio_N) & (ratio_N <= config.high), ratio_N, 0.0)
    if (given_N := streams.optional.get("weights")) is not None:
        weights_N = weights_N * given_N
    return replace(
        streams.with_optional(weights=weights_N.astype(np.float32)),
        old_logprobs_N=trainer_N.astype(np.float32, copy=False),
    )


def gap_metrics(gap_N: torch.Tensor) -> dict[str, Metric]:
    """Summarise `trainer - engine` log-probabilities of sampled tokens.

    `rollout/kl` is the k3 estimate of KL(engine || trainer) (Schulman, "Approximating KL
    divergence"): never negative, 0 when they agree.
    """
    if not len(gap_N):
        return {}
    gap_N = gap_N.detach().double()
    k3_N = gap_N.clamp(max=LARGEST_EXPONENT).expm1() - gap_N
    mean, worst, kl = torch.stack([gap_N.abs().mean(), gap_N.abs().max(), k3_N.mean()]).tolist()
    weight = float(len(gap_N))
    return {
        "rollout/logprob_diff/mean": Metric(value=mean, weight=weight),
        "rollout/logprob_diff/max": Metric(value=worst, reduce="max"),
        "rollout/kl": Metric(value=kl, weight=weight),
    }


def weight_metrics(streams: Streams) -> dict[str, Metric]:
    """Summarise the importance weights of the trained tokens."""
    weights_N = streams.optional["weights"][streams.loss_mask_N > 0]
    return {
        "rollout/is_weight/mean": Metric(value=float(weights_N.mean(dtype=np.float64))),
        "rollout/is_weight/zero_frac": Metric(value=float((weights_N == 0).mean())),
    }


def recommend_correction(gap: float) -> None:
    """Warn of a large mean difference of log-probabilities that is left uncorrected."""
    if gap > LARGE_GAP:
        logger.warning(
            "the engine's and the trainer's log-probabilities differ by %.3f on average; consider "
            "train.correction.type=truncate",
            gap,
        )
