"""The clipped policy-gradient loss and its aggregation over tokens and sequences.

Shapes: B sequences, T tokens.
"""

from typing import Literal

import torch

from agentrl.algorithms.base import MinibatchTotals

Aggregation = Literal["token_mean", "sequence_mean"]


def clipped_loss(
    log_ratio_BT: torch.Tensor, advantages_BT: torch.Tensor, *, clip_low: float, clip_high: float
) -> torch.Tensor:
    """Return PPO's pessimistic surrogate per token (arXiv:1707.06347, eq. 7), negated.

    The bounds of the ratio are `1 - clip_low` and `1 + clip_high` (separate as in DAPO,
    arXiv:2503.14476).
    """
    ratio_BT = log_ratio_BT.exp()
    clipped_BT = ratio_BT.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio_BT * advantages_BT, clipped_BT * advantages_BT)


def aggregate(
    values_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    totals: MinibatchTotals,
    aggregation: Aggregation,
) -> torch.Tensor:
    """Return a micro-batch's share of the minibatch mean of `values_BT` where the mask is 1.

    `token_mean` weighs all tokens alike; `sequence_mean` averages each sequence first.
    """
    mask_BT = mask_BT.to(values_BT.dtype)
    # Chosen by `where`, not multiplied: a masked infinity times 0 would be NaN.
    kept_BT = torch.where(mask_BT > 0, values_BT, torch.zeros_like(values_BT))
    if aggregation == "token_mean":
        return kept_BT.sum() / totals.num_tokens
    lengths_B = mask_BT.sum(dim=-1).clamp(min=1)
    return (kept_BT.sum(dim=-1) / lengths_B).sum() / totals.num_sequences
