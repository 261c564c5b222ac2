"""Correcting for the gap between the engine that sampled and the trainer that learns.

Engine and trainer compute one policy with different kernels and, with stale rollouts, different
weights, so the samples come from another distribution than the one the loss assumes. Importance
weights `trainer / engine` make up for that; bounding them keeps the variance down. Sources:
truncated importance sampling, Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You
Off-Policy RL Training"; masking out-of-bounds tokens, IcePop (Ring-1T, arXiv:2510.18855).
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from agentrl.config.train import CorrectionConfig
from agentrl.learner.batch import TrainSequence

logger = logging.getLogger(__name__)

LARGE_GAP = 0.05
"""A mean difference of log-probabilities beyond which a correction is recommended."""


def corrected(
    sequences: Sequence[TrainSequence],
    trainer_logprobs: Iterator[Sequence[float]],
    config: CorrectionConfig,
) -> Iterator[TrainSequence]:
    """Yield the sequences with the trainer's `old_logprobs` and bounded importance weights.

    `trainer_logprobs` are of the weights before the update, one row per sequence.
    """
    for sequence, logprobs in zip(sequences, trainer_logprobs, strict=True):
        gaps = [
            ours - engine if bit else 0.0
            for ours, engine, bit in zip(
                logprobs, sequence.old_logprobs, sequence.mask, strict=True
            )
        ]
        if config.level == "sequence":
            gaps = [math.fsum(gaps)] * len(gaps)
        yield replace(
            sequence,
            old_logprobs=tuple(logprobs),
            weights=tuple(_bounded(gap, config) for gap in gaps),
        )


def gap_metrics(
    engine: Sequence[TrainSequence], trainer: Sequence[Sequence[float]]
) -> dict[str, float]:
    """Compare both sides' log-probabilities of the sampled tokens.

    `rollout/kl` is the k3 estimate of KL(engine || trainer) (Schulman, "Approximating KL
    divergence"): never negative, 0 when they agree.
    """
    gaps = [
        ours - theirs
        for sequence, logprobs in zip(engine, trainer, strict=True)
        for ours, theirs, bit in zip(logprobs, sequence.old_logprobs, sequence.mask, strict=True)
        if bit
    ]
    count = max(len(gaps), 1)
    return {
        "rollout/logprob_diff/mean": math.fsum(map(abs, gaps)) / count,
        "rollout/logprob_diff/max": max(map(abs, gaps), default=0.0),
        "rollout/kl": math.fsum(math.expm1(min(gap, 50.0)) - gap for gap in gaps) / count,
    }


def weight_metrics(sequences: Sequence[TrainSequence]) -> dict[str, float]:
    """Summarise the importance weights of the trained tokens."""
    weights = [w for s in sequences for w, bit in zip(s.weights, s.mask, strict=True) if bit]
    return {
        "rollout/is_weight/mean": math.fsum(weights) / max(len(weights), 1),
        "rollout/is_weight/zero_frac": weights.count(0.0) / max(len(weights), 1),
    }


def recommend_correction(gap: float) -> None:
    """Warn of a gap that is left uncorrected."""
    logger.warning(
        "the engine's and the trainer's log-probabilities differ by %.3f on average; consider "
        "train.correction.type=truncate",
        gap,
    )


def _bounded(gap: float, config: CorrectionConfig) -> float:
    ratio = math.exp(min(gap, 50.0))
    if config.type == "truncate":
        return min(ratio, config.high)
    return ratio if config.low <= ratio <= config.high else 0.0
