"""From token lists to padded micro-batches sized by tokens.

Rows are padded on the right, which a causal model never sees from the left, so no attention mask
is needed and the numbers of a row do not depend on its neighbours.

Shapes: B sequences, T tokens of the longest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSequence:
    """One sequence to learn from; all tuples have equal length T.

    `mask` is 1 on tokens that enter the loss. `weights` are importance weights, empty without
    correction. SFT uses neither them nor advantage and log-probabilities.
    """

    token_ids: tuple[int, ...]
    mask: tuple[int, ...]
    old_logprobs: tuple[float, ...] = ()
    ref_logprobs: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    advantage: float = 0.0

    @property
    def num_trained(self) -> int:
        """Tokens that enter the loss."""
        return sum(self.mask)


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroBatch:
    """Padded tensors of some sequences, on the device."""

    input_ids_BT: torch.Tensor
    mask_BT: torch.Tensor
    old_logprobs_BT: torch.Tensor
    ref_logprobs_BT: torch.Tensor | None
    weights_BT: torch.Tensor | None
    advantages_BT: torch.Tensor
    first_trained: int
    """The first column in which any row has mask 1; columns before need no logits."""


def micro_batches(
    sequences: Sequence[TrainSequence], *, max_tokens: int
) -> Iterator[list[TrainSequence]]:
    """Split into micro-batches of at most `max_tokens` padded tokens, longest first.

    A sequence longer than the limit is a micro-batch of its own. The order is a function of the
    sequences alone.
    """
    ordered = sorted(sequences, key=lambda s: len(s.token_ids), reverse=True)
    batch: list[TrainSequence] = []
    for sequence in ordered:
        if batch and len(batch[0].token_ids) * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(sequence)
    if batch:
        yield batch


def collate(sequences: Sequence[TrainSequence], device: torch.device) -> MicroBatch:
    """Pad sequences into one micro-batch."""
    width = max(len(s.token_ids) for s in sequences)
    mask_BT = _padded([s.mask for s in sequences], width, torch.long, device)
    advantages_B1 = torch.tensor([[s.advantage] for s in sequences], device=device)

    def optional(rows: list[tuple[float, ...]]) -> torch.Tensor | None:
        return _padded(rows, width, torch.float32, device) if all(rows) else None

    return MicroBatch(
        input_ids_BT=_padded([s.token_ids for s in sequences], width, torch.long, device),
        mask_BT=mask_BT,
        old_logprobs_BT=_padded([s.old_logprobs for s in sequences], width, torch.float32, device),
        ref_logprobs_BT=optional([s.ref_logprobs for s in sequences]),
        weights_BT=optional([s.weights for s in sequences]),
        advantages_BT=advantages_B1.expand(-1, width),
        first_trained=int(mask_BT.any(dim=0).int().argmax()),
    )


def _padded(
    rows: Sequence[Sequence[float]], width: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    padded = [[*row, *[0] * (width - len(row))] for row in rows]
    return torch.tensor(padded, dtype=dtype, device=device)
