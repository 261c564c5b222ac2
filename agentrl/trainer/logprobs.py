"""The trainer's log-probabilities of given tokens, under the temperature they were sampled at.

Shapes: B sequences, T tokens, V tokens of the vocabulary.
"""

from typing import Any

import torch

from agentrl.rollout.engines.sampling import safe_temperature
from agentrl.trainer.sequences import MicroBatch


def token_logprobs(
    model: Any, batch: MicroBatch, *, temperature: float, entropy: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return `(logprobs_BT, entropy_BT)` in float32; column t belongs to token t.

    Columns before the first trained token are 0: their logits are never computed. The entropy is
    that of the distribution each token was drawn from, without gradient; None unless asked for.
    """
    num_rows, width = batch.input_ids_BT.shape
    # Token t is predicted by the logits of t - 1.
    start = max(batch.first_trained - 1, 0)
    output = model(input_ids=batch.input_ids_BT, use_cache=False, logits_to_keep=width - start)
    logits_BTV = output.logits[:, :-1]
    targets_BT = batch.input_ids_BT[:, start + 1 :]
    scale = 1.0 / safe_temperature(temperature)
    # Row by row, so that the float32 copy of the logits is one row's, not the batch's.
    rows = [_row_logprobs(logits_BTV[i], targets_BT[i], scale, entropy) for i in range(num_rows)]
    padding = logits_BTV.new_zeros((num_rows, start + 1), dtype=torch.float32)
    logprobs_BT = torch.cat([padding, torch.stack([row[0] for row in rows])], dim=1)
    if not entropy:
        return logprobs_BT, None
    return logprobs_BT, torch.cat([padding, torch.stack([row[1] for row in rows])], dim=1)


def _row_logprobs(
    logits_TV: torch.Tensor, targets_T: torch.Tensor, scale: float, entropy: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    logprobs_TV = (logits_TV.float() * scale).log_softmax(dim=-1)
    picked_T = logprobs_TV.gather(-1, targets_T[:, None])[:, 0]
    if not entropy:
        return picked_T, picked_T
    with torch.no_grad():
        # A token of probability 0 adds 0, not 0 * -inf.
        return picked_T, torch.special.entr(logprobs_TV.exp()).sum(dim=-1)
