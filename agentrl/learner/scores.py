"""The trainer's log-probabilities of given tokens, under the temperature they were sampled at.

Logits of a large vocabulary dwarf the rest of a small model's time and memory. So only trained
tokens get logits; one pass over a chunk that fits the cache gives its log-sum-exp and entropy; and
the backward pass turns the logits themselves into their gradient, in place.

Shapes: R rows of T tokens, N trained tokens of all rows, L rows of logits, V tokens of the
vocabulary, C of a chunk.
"""

import inspect
from typing import Any

import torch

from agentrl.algorithms.base import Batch, TokenScores
from agentrl.engines.sampling import safe_temperature
from agentrl.learner.attention import is_attending, segment_arguments

CHUNK_VALUES = {"cpu": 2**19, "cuda": 2**25}
"""Float32 values of one chunk: what a CPU's cache holds; what fills a GPU (128 MiB)."""
LOWEST = -1e4
"""Stands in for a logit of -inf: its exponential is 0 as well, and 0 * -inf would be NaN."""


def score(model: Any, batch: Batch, *, temperature: float) -> TokenScores:
    """Return log-probabilities and entropies of a batch's trained tokens."""
    width = batch.input_ids_RT.shape[1]
    rows_N, columns_N = batch.loss_mask_RT.nonzero(as_tuple=True)
    arguments: dict[str, Any] = {"use_cache": False}
    if batch.is_packed or is_attending(model):
        arguments |= segment_arguments(batch.segment_lengths, model)
        arguments["position_ids"] = batch.position_ids_RT
    # Token t is predicted by the logits of t - 1; of a single row, no others are computed.
    at_N: torch.Tensor | None = rows_N * width + columns_N - 1
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        if len(batch.input_ids_RT) == 1:
            arguments["logits_to_keep"], at_N = columns_N - 1, None
        else:
            first = int(columns_N.min()) - 1
            arguments["logits_to_keep"] = width - first
            at_N = rows_N * (width - first) + columns_N - 1 - first
    logits = model(input_ids=batch.input_ids_RT, **arguments).logits
    apply: Any = _Scores.apply  # torch leaves it without types
    logprobs_N, entropy_N = apply(
        logits.flatten(0, 1),
        at_N,
        batch.input_ids_RT[rows_N, columns_N],
        1.0 / safe_temperature(temperature),
    )
    zeros_RT = torch.zeros_like(batch.old_logprobs_RT)
    return TokenScores(
        logprobs_RT=zeros_RT.index_put((rows_N, columns_N), logprobs_N),
        entropy_RT=zeros_RT.index_put((rows_N, columns_N), entropy_N),
    )


class _Scores(torch.autograd.Function):
    """Log-probability and entropy of chosen tokens at chosen rows of logits (None: all, in order).

    d logprob / d logit_v = scale * ([v is the token] - probability_v); each row is chosen once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits_LV: torch.Tensor,
        at_N: torch.Tensor | None,
        targets_N: torch.Tensor,
        scale: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        normalizer_N = logits_LV.new_empty(len(targets_N), dtype=torch.float32)
        logprobs_N, entropy_N = torch.empty_like(normalizer_N), torch.empty_like(normalizer_N)
        for part in _chunks(logits_LV, len(targets_N)):
            scaled_CV = _scaled(logits_LV, at_N, part, scale)
            highest_C1 = scaled_CV.amax(dim=-1, keepdim=True)
            picked_C1 = scaled_CV.gather(-1, targets_N[part, None]) - highest_C1
            shifted_CV = (scaled_CV - highest_C1).clamp_(min=LOWEST)
            weights_CV = shifted_CV.exp()
            total_C = weights_CV.sum(dim=-1)
            mean_C = torch.bmm(weights_CV[:, None], shifted_CV[..., None]).flatten() / total_C
            log_total_C = total_C.log()
            normalizer_N[part] = highest_C1[:, 0] + log_total_C
            logprobs_N[part] = picked_C1[:, 0] - log_total_C
            entropy_N[part] = log_total_C - mean_C
        ctx.save_for_backward(logits_LV, at_N, targets_N, normalizer_N)
        ctx.scale = scale
        ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits_LV, at_N, targets_N, normalizer_N = ctx.saved_tensors
        slope_N1 = (gradients[0] * ctx.scale)[:, None]
        for part in _chunks(logits_LV, len(targets_N)):
            slope_CV = _scaled(logits_LV, at_N, part, ctx.scale)
            slope_CV = slope_CV.sub_(normalizer_N[part, None]).exp_().mul_(-slope_N1[part])
            slope_CV.scatter_add_(1, targets_N[part, None], slope_N1[part])
            rows = part if at_N is None else at_N[part]
            if slope_CV.data_ptr() != logits_LV[part].data_ptr():  # else it was done in place
                logits_LV[rows] = slope_CV.to(logits_LV.dtype)
        if at_N is not None:
            others_L = torch.ones(len(logits_LV), dtype=torch.bool, device=logits_LV.device)
            others_L[at_N] = False
            logits_LV[others_L] = 0
        return logits_LV, None, None, None


def _scaled(
    logits_LV: torch.Tensor, at_N: torch.Tensor | None, part: slice, scale: float
) -> torch.Tensor:
    """Return rows of logits in float32, over the temperature; a view of them where it can be."""
    rows_CV = (logits_LV[part] if at_N is None else logits_LV[at_N[part]]).float()
    return rows_CV if scale == 1.0 else rows_CV * scale


def _chunks(logits_LV: torch.Tensor, count: int) -> list[slice]:
    size = max(CHUNK_VALUES[logits_LV.device.type] // logits_LV.shape[1], 1)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
