"""From logits to sampled tokens: the one definition of the sampling distribution.

`process_logits` says what temperature, top-k and top-p mean; `sample` draws from it with one
uniform number per row, so that a request's randomness never depends on its batch-mates. The
trainer divides by the same `safe_temperature`, which keeps its log-probabilities comparable.

Shapes: B rows, V tokens of the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from agentrl.contracts.engine import Sampling


def safe_temperature(temperature: float) -> float:
    """Return the divisor of the logits: greedy (0) is scored under the plain softmax."""
    return temperature if temperature > 0 else 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingPlan:
    """The sampling parameters of a batch, as tensors, and which work they ask for."""

    temperature_B: torch.Tensor
    top_k_B: torch.Tensor
    top_p_B: torch.Tensor
    greedy_B: torch.Tensor
    truncates: bool
    scales: bool
    any_greedy: bool

    @classmethod
    def of(cls, samplings: Sequence[Sampling], device: torch.device) -> Self:
        """Gather the parameters of the batch's requests. A greedy row is never truncated."""
        greedy = [s.temperature == 0 for s in samplings]
        top_k = [0 if s.temperature == 0 else s.top_k for s in samplings]
        top_p = [1.0 if s.temperature == 0 else s.top_p for s in samplings]
        temperature = [safe_temperature(s.temperature) for s in samplings]
        return cls(
            temperature_B=torch.tensor(temperature, dtype=torch.float32, device=device),
            top_k_B=torch.tensor(top_k, device=device),
            top_p_B=torch.tensor(top_p, dtype=torch.float32, device=device),
            greedy_B=torch.tensor(greedy, device=device),
            truncates=any(k > 0 for k in top_k) or any(p < 1 for p in top_p),
            scales=any(t != 1.0 for t in temperature),
            any_greedy=any(greedy),
        )


def process_logits(logits_BV: torch.Tensor, plan: SamplingPlan) -> torch.Tensor:
    """Return float32 logits of the distribution that is sampled from.

    In this order: divide by the temperature, keep the `top_k` highest, keep the smallest set of
    those whose probability reaches `top_p` (at least one token). What is left out is -inf.
    """
    logits_BV = logits_BV.float()
    if plan.scales:
        logits_BV = logits_BV / plan.temperature_B[:, None]
    if not plan.truncates:
        return logits_BV
    sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
    rank_V = torch.arange(logits_BV.shape[-1], device=logits_BV.device)
    top_k_B1 = plan.top_k_B[:, None]
    sorted_BV = sorted_BV.masked_fill((top_k_B1 > 0) & (rank_V >= top_k_B1), -torch.inf)
    probs_BV = sorted_BV.softmax(dim=-1)
    before_BV = probs_BV.cumsum(dim=-1) - probs_BV
    top_p_B1 = plan.top_p_B[:, None]
    # Rounding can bring the sum before a tail token to 1, so a row with top_p 1 is exempt.
    sorted_BV = sorted_BV.masked_fill((top_p_B1 < 1) & (before_BV >= top_p_B1), -torch.inf)
    return torch.empty_like(sorted_BV).scatter_(-1, order_BV, sorted_BV)


def sample(
    logits_BV: torch.Tensor, plan: SamplingPlan, uniforms: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one token per row.

    Args:
        logits_BV: the model's logits at the last position.
        plan: the rows' sampling parameters.
        uniforms: one number in [0, 1) per row; greedy rows ignore theirs.

    Returns:
        `(tokens_B, logprobs_B)`, the log-probabilities in float32 under the distribution drawn
        from.
    """
    logprobs_BV = process_logits(logits_BV, plan).log_softmax(dim=-1)
    # In float64 the sum stays below its last entry for every uniform below 1, so a token of
    # probability 0 is never hit.
    cdf_BV = logprobs_BV.exp().cumsum(dim=-1, dtype=torch.float64)
    uniforms_B1 = torch.tensor(uniforms, dtype=torch.float64, device=logits_BV.device)[:, None]
    tokens_B1 = torch.searchsorted(cdf_BV, uniforms_B1 * cdf_BV[:, -1:], right=True)
    tokens_B1 = tokens_B1.clamp_(max=logits_BV.shape[-1] - 1)
    if plan.any_greedy:
        best_B1 = logprobs_BV.argmax(dim=-1, keepdim=True)
        tokens_B1 = torch.where(plan.greedy_B[:, None], best_B1, tokens_B1)
    return tokens_B1[:, 0], logprobs_BV.gather(-1, tokens_B1)[:, 0]
