"""From samples to tensors: laid end to end once, cut into micro-batches by tokens.

    samples -> Streams (flat arrays) -> plan: which samples go together -> Batch on the device

A plan holds indices of samples, so what a model says about a batch finds its way back by
position. In a packed batch all samples stand in one row, without padding; in a padded one each
has a row, and a causal model never sees what stands behind it.

Shapes: S samples, N tokens of some samples end to end; R rows of T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch

from agentrl.algorithms.base import Batch
from agentrl.algorithms.samples import TrainSample
from agentrl.errors import RunError

OPTIONAL = ("ref_logprobs", "values", "returns", "weights", "teacher_logprobs")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Streams:
    """All samples of a step, each stream one array of all tokens. Sample s has `lengths_S[s]`."""

    token_ids_N: np.ndarray
    loss_mask_N: np.ndarray
    old_logprobs_N: np.ndarray
    advantages_N: np.ndarray
    optional: dict[str, np.ndarray] = field(default_factory=dict)
    lengths_S: np.ndarray
    starts_S: np.ndarray
    num_trained_S: np.ndarray
    """How many tokens of each sample enter the loss."""
    sequences_S: np.ndarray
    """Which sequence each sample is a branch of, counted from 0 in order of appearance."""
    sequence_tokens_S: np.ndarray
    """How many tokens of each sample's whole sequence enter the loss."""

    @classmethod
    def of(cls, samples: Sequence[TrainSample]) -> Self:
        """Lay samples end to end. A stream is there if every sample has it.

        Raises:
            RunError: a sample shows media, trains on its first token, or lacks what others have.
        """
        if any(sample.media for sample in samples):
            raise RunError(
                "a sample holds images or videos, which the learner cannot show to the model yet; "
                "train on text"
            )
        lengths_S = np.array([len(sample.token_ids) for sample in samples], np.int64)
        starts_S, sequences_S = _starts(lengths_S), _sequences(samples)
        mask_N = _joined([sample.loss_mask for sample in samples], np.uint8)
        if mask_N[starts_S].any():
            raise RunError("a sample trains on its first token, which nothing predicts; mask it")
        num_trained_S = np.add.reduceat(mask_N, starts_S, dtype=np.int64)
        tokens_Q = np.bincount(sequences_S, weights=num_trained_S)
        return cls(
            token_ids_N=_joined([sample.token_ids for sample in samples], np.int32),
            loss_mask_N=mask_N,
            old_logprobs_N=_given(samples, "logprobs", np.zeros(len(mask_N), np.float32)),
            advantages_N=_given(samples, "advantages", np.zeros(len(mask_N), np.float32)),
            optional={
                name: values_N
                for name in OPTIONAL
                if (values_N := _given(samples, name, None)) is not None
            },
            lengths_S=lengths_S,
            starts_S=starts_S,
            num_trained_S=num_trained_S,
            sequences_S=sequences_S,
            sequence_tokens_S=tokens_Q[sequences_S].astype(np.float32),
        )

    @property
    def num_sequences(self) -> int:
        """How many sequences the samples are branches of."""
        return int(self.sequences_S.max()) + 1

    def of_sequences(self, chosen: np.ndarray) -> np.ndarray:
        """Return the samples of some sequences, in the order of those."""
        order = np.argsort(self.sequences_S, kind="stable")
        ends = np.searchsorted(self.sequences_S[order], chosen, side="right")
        starts = np.searchsorted(self.sequences_S[order], chosen, side="left")
        parts = [order[start:end] for start, end in zip(starts, ends, strict=True)]
        return np.concatenate(parts)

    def segments(self, values_N: np.ndarray) -> np.ndarray:
        """Return the sum over each sample, for each of its tokens, in float64."""
        sums_S = np.add.reduceat(values_N, self.starts_S, dtype=np.float64)
        return np.repeat(sums_S, self.lengths_S)

    def with_optional(self, **streams: np.ndarray) -> Self:
        """Return the streams with others beside them or in their place."""
        return replace(self, optional={**self.optional, **streams})

    def places(self, chosen: np.ndarray) -> np.ndarray:
        """Return where the tokens of some samples stand, in the order of a batch of them."""
        lengths = self.lengths_S[chosen]
        shifts = self.starts_S[chosen] - _starts(lengths)
        places_N: np.ndarray = np.arange(lengths.sum()) + np.repeat(shifts, lengths)
        return places_N

    def batch(self, chosen: np.ndarray, *, packed: bool, device: torch.device) -> Batch:
        """Return some samples as tensors: one packed row, or a padded row each."""
        lengths = self.lengths_S[chosen]
        shape = (len(chosen), int(lengths.max()))
        places_N = self.places(chosen)
        positions_N = places_N - np.repeat(self.starts_S[chosen], lengths)
        segments_N = np.repeat(np.arange(len(chosen)), lengths)

        def tensor(values_N: np.ndarray, dtype: type, padding: int = 0) -> torch.Tensor:
            if packed:
                return torch.from_numpy(values_N.astype(dtype, copy=False)[None]).to(device)
            cells: np.ndarray = np.full(shape, padding, dtype)
            cells[segments_N, positions_N] = values_N
            return torch.from_numpy(cells).to(device)

        return Batch(
            input_ids_RT=tensor(self.token_ids_N.take(places_N), np.int64),
            position_ids_RT=tensor(positions_N, np.int64),
            segment_ids_RT=tensor(segments_N, np.int64, padding=-1),
            loss_mask_RT=tensor(self.loss_mask_N.take(places_N), np.uint8),
            old_logprobs_RT=tensor(self.old_logprobs_N.take(places_N), np.float32),
            advantages_RT=tensor(self.advantages_N.take(places_N), np.float32),
            sequence_tokens_S=torch.from_numpy(self.sequence_tokens_S[chosen]).to(device),
            segment_lengths=tuple(lengths.tolist()),
            num_trained=int(self.num_trained_S[chosen].sum()),
            **{
                f"{name}_RT": tensor(values_N.take(places_N), np.float32)
                for name, values_N in self.optional.items()
            },
        )


def micro_batches(
    lengths_S: np.ndarray, chosen: np.ndarray, *, max_tokens: int, packed: bool
) -> list[np.ndarray]:
    """Cut some samples into micro-batches of at most `max_tokens`, longest first.

    Padding counts. A sample longer than the limit is a micro-batch of its own. The order is a
    function of lengths and choice alone.
    """
    ordered = chosen[np.argsort(-lengths_S[chosen], kind="stable")]
    starts, widest, total = [0], 0, 0
    for index, length in enumerate(lengths_S[ordered].tolist()):
        count = index - starts[-1]
        if count and (total + length if packed else widest * (count + 1)) > max_tokens:
            starts.append(index)
            count = 0
        widest, total = (widest, total + length) if count else (length, length)
    return np.split(ordered, starts[1:]) if len(ordered) else []


def _starts(lengths_S: np.ndarray) -> np.ndarray:
    starts_S: np.ndarray = np.cumsum(lengths_S) - lengths_S
    return starts_S


def _joined(arrays: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(arrays).astype(dtype, copy=False) if arrays else np.zeros(0, dtype)


def _given(samples: Sequence[TrainSample], name: str, default: Any) -> Any:
    """Return one stream of all samples, or `default` where none has it."""
    arrays = [getattr(sample, name) for sample in samples]
    missing = sum(array is None for array in arrays)
    if missing == len(arrays):
        return default
    if missing:
        raise RunError(
            f"{missing} of {len(arrays)} samples have no `{name}`; an algorithm's `credit` gives "
            f"a stream to every sample, or to none"
        )
    return _joined(arrays, np.float32)


def _sequences(samples: Sequence[TrainSample]) -> np.ndarray:
    """Number the samples' trajectories; a sample of none is a sequence of its own."""
    numbers: dict[object, int] = {}
    keys = [sample.trajectory_id or index for index, sample in enumerate(samples)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
