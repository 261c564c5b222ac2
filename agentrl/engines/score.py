"""Scoring given tokens with a module: shared by the embedded engine and the trainer's probe."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode; restore every submodule's own mode afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@torch.no_grad()
def score_tokens(model: PreTrainedModel, token_ids: Sequence[int]) -> list[float]:
    """Return the log-probability of every token but the first: the plain softmax's, in float32."""
    ids_1T = torch.tensor([list(token_ids)], device=model.device)
    with evaluating(model):
        logits_TV = model(input_ids=ids_1T, use_cache=False).logits[0, :-1].float()
    picked_T1 = logits_TV.log_softmax(dim=-1).gather(-1, ids_1T[0, 1:, None])
    scores: list[float] = picked_T1[:, 0].tolist()
    return scores
