"""What is learned from: one context with one value per token in every stream.

    trajectory: a tree of turns -> its leaves -> one sample each

Leaves share what lies before their branching. A sampled token is trained exactly once, in the
first leaf that holds it; later ones have it as context, with mask 0.

Shapes: T tokens of a sample.
"""

from dataclasses import dataclass

import numpy as np

from agentrl.contracts.media import Media
from agentrl.contracts.trajectory import Branch, Trajectory


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainSample:
    """One sequence to learn from; every stream that is there has length T.

    `token_ids` (int32); `loss_mask` (uint8) is 1 on tokens that enter the loss, never on the first,
    which nothing predicts. `logprobs` (float32) are of the policy that sampled, `versions` (int32)
    the weights it had; demonstrations have neither, nor `advantages` (float32). The rest is
    optional (float32): `weights` multiply the policy gradient of a token, `ref_logprobs`, `values`,
    `returns` and `teacher_logprobs` are other models' words. `turn_starts` say where turns begin,
    `pair` which samples belong together.
    """

    token_ids: np.ndarray
    loss_mask: np.ndarray
    logprobs: np.ndarray | None = None
    advantages: np.ndarray | None = None
    versions: np.ndarray | None = None
    ref_logprobs: np.ndarray | None = None
    values: np.ndarray | None = None
    returns: np.ndarray | None = None
    weights: np.ndarray | None = None
    teacher_logprobs: np.ndarray | None = None
    trajectory_id: str = ""
    turn_starts: tuple[int, ...] = ()
    pair: str | None = None
    media: tuple[Media, ...] = ()


def samples_of(trajectory: Trajectory) -> list[TrainSample]:
    """Return a sample per leaf that holds sampled tokens which no earlier leaf has trained.

    Each ends with its last trained token. A dropped trajectory has none, a masked one neither.
    """
    if trajectory.dropped:
        return []
    samples: list[TrainSample] = []
    trained = [0] * len(trajectory.turns)
    for leaf in trajectory.leaves:
        branch = trajectory.branch(leaf)
        mask = _untrained(branch, trained)
        places = np.flatnonzero(mask)
        if len(places):
            samples.append(_sample(trajectory, branch, mask, end=int(places[-1]) + 1))
    return samples


def _untrained(branch: Branch, trained: list[int]) -> np.ndarray:
    """Return the branch's mask without what is trained already; count what now is.

    A branch holds the first tokens of a turn, so a count per turn says which are trained.
    """
    mask = branch.mask.copy()
    ends = (*branch.turn_starts[1:], len(mask))
    for turn, start, end in zip(branch.turns, branch.turn_starts, ends, strict=True):
        mask[start : min(start + trained[turn], end)] = 0
        trained[turn] = max(trained[turn], end - start)
    return mask


def _sample(trajectory: Trajectory, branch: Branch, mask: np.ndarray, *, end: int) -> TrainSample:
    starts = tuple(start for start in branch.turn_starts if start < end)
    return TrainSample(
        token_ids=branch.token_ids[:end],
        loss_mask=mask[:end],
        logprobs=branch.logprobs[:end],
        versions=branch.versions[:end],
        trajectory_id=trajectory.id,
        turn_starts=starts,
        media=tuple(m for i in branch.turns[: len(starts)] for m in trajectory.turns[i].media),
    )
