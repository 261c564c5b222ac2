"""Estimators of the KL divergence from policy to reference, per token of the policy's samples.

Source: J. Schulman, "Approximating KL Divergence" (2020). With r = ref_logprob - logprob:
k1 = -r (unbiased, high variance), k2 = r^2/2 (low variance, biased), k3 = e^r - 1 - r (unbiased,
never negative).
"""

from typing import Literal

import torch

KLEstimator = Literal["k1", "k2", "k3"]


def kl_estimate(
    logprobs: torch.Tensor, ref_logprobs: torch.Tensor, estimator: KLEstimator
) -> torch.Tensor:
    """Return the estimate for every token, in the shape of the arguments."""
    log_ratio = ref_logprobs - logprobs
    if estimator == "k1":
        return -log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2
    return log_ratio.exp() - 1 - log_ratio
