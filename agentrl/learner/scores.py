"""The trainer's log-probabilities of given tokens, under the temperature they were sampled at.

Logits of a large vocabulary dwarf the rest of a small model's memory. So only trained tokens are
scored, some at a time, and what the backward pass needs is computed again there: beside the
logits themselves and their gradient, float32 copies exist for one chunk only.

Shapes: B sequences, T tokens, N trained tokens of all rows, V tokens of the vocabulary.
"""

from typing import Any

import torch

from agentrl.engines.sampling import safe_temperature
from agentrl.learner.batch import MicroBatch

CHUNK_VALUES = 2**25
"""Float32 values of one chunk (128 MiB); a few such copies exist at once."""


def token_logprobs(
    model: Any, batch: MicroBatch, *, temperature: float, entropy: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return `(logprobs_BT, entropy_BT)` in float32; column t belongs to token t.

    Both are 0 where the mask is. The entropy is that of the distribution each token was drawn
    from, without gradient; None unless asked for.
    """
    width = batch.input_ids_BT.shape[1]
    # Token t is predicted by the logits of t - 1; those before the first one are never computed.
    start = max(batch.first_trained - 1, 0)
    output = model(input_ids=batch.input_ids_BT, use_cache=False, logits_to_keep=width - start)
    rows_N, columns_N = batch.mask_BT[:, 1:].nonzero(as_tuple=True)
    columns_N = columns_N + 1
    apply: Any = _Scores.apply  # torch leaves it without types
    logprobs_N, entropy_N = apply(
        output.logits.flatten(0, 1),
        rows_N * (width - start) + columns_N - 1 - start,
        batch.input_ids_BT[rows_N, columns_N],
        1.0 / safe_temperature(temperature),
        entropy,
    )
    zeros_BT = torch.zeros_like(batch.old_logprobs_BT)
    logprobs_BT = zeros_BT.index_put((rows_N, columns_N), logprobs_N)
    if not entropy:
        return logprobs_BT, None
    return logprobs_BT, zeros_BT.index_put((rows_N, columns_N), entropy_N)


class _Scores(torch.autograd.Function):
    """Log-probability and entropy of chosen tokens at chosen rows of logits.

    d logprob / d logit_v = scale * ([v is the token] - probability_v); each row is chosen once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits_RV: torch.Tensor,
        at_N: torch.Tensor,
        targets_N: torch.Tensor,
        scale: float,
        entropy: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(logits_RV, at_N, targets_N)
        ctx.scale = scale
        logprobs_N = logits_RV.new_zeros(len(at_N), dtype=torch.float32)
        entropy_N = torch.zeros_like(logprobs_N)
        for part in _chunks(len(at_N), logits_RV.shape[1]):
            logprobs_CV = _log_softmax(logits_RV, at_N[part], scale)
            logprobs_N[part] = logprobs_CV.gather(-1, targets_N[part, None])[:, 0]
            if entropy:
                # A token of probability 0 adds 0, not 0 * -inf.
                entropy_N[part] = torch.special.entr(logprobs_CV.exp_()).sum(dim=-1)
        ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits_RV, at_N, targets_N = ctx.saved_tensors
        slope_N1 = (gradients[0] * ctx.scale)[:, None]
        gradient_RV = torch.zeros_like(logits_RV)
        for part in _chunks(len(at_N), logits_RV.shape[1]):
            slope_CV = _log_softmax(logits_RV, at_N[part], ctx.scale).exp_().mul_(-slope_N1[part])
            slope_CV.scatter_add_(1, targets_N[part, None], slope_N1[part])
            gradient_RV[at_N[part]] = slope_CV.to(logits_RV.dtype)
        return gradient_RV, None, None, None, None


def _log_softmax(logits_RV: torch.Tensor, at_C: torch.Tensor, scale: float) -> torch.Tensor:
    return (logits_RV[at_C].float() * scale).log_softmax(dim=-1)


def _chunks(count: int, vocabulary: int) -> list[slice]:
    size = max(CHUNK_VALUES // vocabulary, 1)
    return [slice(start, start + size) for start in range(0, count, size)]
