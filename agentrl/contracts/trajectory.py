"""What one episode left behind: a tree of turns, its rewards, and one reason why it ended.

    prompt -- policy -- tool -- policy -- user -- policy        a linear dialogue: one leaf
                                  `------ user -- policy        a branch: history was rewritten

A turn stores only the tokens that are new since its parent; the prompt is a turn like any other.
The *context* of a turn is the first `kept` tokens of its parent's context and then its own tokens.
Where a chat template rewrites history, `kept` ends in the middle of what was there, and the turn
begins a branch. Nothing that the policy sampled is ever tokenised again.

Shapes: N new tokens of a turn, T tokens of a context.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from itertools import accumulate
from typing import Any

import numpy as np

from agentrl.contracts.failure import Failure
from agentrl.contracts.media import Media
from agentrl.contracts.message import Message
from agentrl.contracts.reward import RewardLedger
from agentrl.contracts.sample import Sample
from agentrl.contracts.tool import ToolRecord


class TurnKind(StrEnum):
    """Who wrote a turn's tokens."""

    PROMPT = "prompt"
    POLICY = "policy"
    TOOL = "tool"
    USER = "user"


class Termination(StrEnum):
    """Why an episode ended. Exactly one applies."""

    ANSWERED = "answered"
    INTERACTION_END = "interaction_end"
    MAX_TURNS = "max_turns"
    MAX_TOKENS = "max_tokens"
    MAX_CONTEXT = "max_context"
    MODEL_ERROR = "model_error"
    TIMEOUT = "timeout"
    INFRA_ERROR = "infra_error"


_STREAMS = {
    "token_ids": np.int32,
    "mask": np.uint8,
    "logprobs": np.float32,
    "versions": np.int32,
}


def _frozen(values: Any, dtype: Any) -> np.ndarray:
    array = np.asarray(values, dtype=dtype)
    if array.flags.writeable:
        array = array.copy() if array.base is not None or array is values else array
        array.setflags(write=False)
    return array


_NOTHING = {name: _frozen(np.zeros(0), dtype) for name, dtype in _STREAMS.items()}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Turn:
    """A stretch of tokens by one writer.

    `token_ids` (int32), `mask` (uint8) and a policy turn's `logprobs` (float32) and `versions`
    (int32, of the weights that wrote each token) have length N; any sequence is taken and frozen.
    `mask` is 1 where a token is trained on: only in policy turns; left out, it is 0 everywhere. A
    tool turn holds one message and one record per parallel call. `parent` is the index of the turn
    before it, None for the prompt; `kept` how many tokens of the parent's context it stands on.
    Times are seconds since the episode began.
    """

    kind: TurnKind
    messages: tuple[Message, ...]
    token_ids: np.ndarray
    mask: np.ndarray = field(default_factory=lambda: _NOTHING["mask"])
    logprobs: np.ndarray = field(default_factory=lambda: _NOTHING["logprobs"])
    versions: np.ndarray = field(default_factory=lambda: _NOTHING["versions"])
    media: tuple[Media, ...] = ()
    tool_records: tuple[ToolRecord, ...] = ()
    parent: int | None = None
    kept: int = 0
    started_s: float = 0.0
    duration_s: float = 0.0

    def __post_init__(self) -> None:
        """Freeze the streams and check the invariants.

        Raises:
            ValueError: lengths differ, or log-probabilities or mask stand where no policy wrote.
        """
        size, policy = len(self.token_ids), self.kind is TurnKind.POLICY
        if not policy and not len(self.mask):
            object.__setattr__(self, "mask", np.zeros(size, np.uint8))
        for name, dtype in _STREAMS.items():
            object.__setattr__(self, name, _frozen(getattr(self, name), dtype))
        if len(self.mask) != size:
            raise ValueError(f"{self.kind} turn: mask has {len(self.mask)} of {size} tokens")
        if self.mask.max(initial=0) > policy:
            raise ValueError(f"{self.kind} turn: mask must be 0, or 1 on tokens the policy wrote")
        expected = size if policy else 0
        for name in ("logprobs", "versions"):
            if (got := len(getattr(self, name))) != expected:
                raise ValueError(f"{self.kind} turn: expected {expected} {name}, got {got}")
        if (self.parent is None) != (self.kind is TurnKind.PROMPT):
            raise ValueError(f"{self.kind} turn: the prompt alone has no parent")

    def __eq__(self, other: object) -> bool:
        """Compare field by field, streams by value."""
        if not isinstance(other, Turn):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, f.name), getattr(other, f.name))
            if f.name in _STREAMS
            else getattr(self, f.name) == getattr(other, f.name)
            for f in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Branch:
    """The context of one turn with every stream along it; all arrays have length T.

    `logprobs` and `versions` are 0 where no policy wrote. `turns` are the indices of the turns
    that lie on it, `turn_starts` where their tokens begin.
    """

    token_ids: np.ndarray
    mask: np.ndarray
    logprobs: np.ndarray
    versions: np.ndarray
    turns: tuple[int, ...]
    turn_starts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectory:
    """One finished episode. `turns[0]` is the prompt; a turn's parent stands before it.

    `dropped` trajectories are recorded but enter neither the loss nor the group's baseline.
    `failure` is what ended it, or the last failure of a tool, if any. `seed` is the episode's.
    """

    id: str
    sample: Sample
    turns: tuple[Turn, ...]
    rewards: RewardLedger
    termination: Termination
    failure: Failure | None = None
    dropped: bool = False
    seed: int = 0
    duration_s: float = 0.0
    tool_schemas: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Check the tree.

        Raises:
            ValueError: the first turn is no prompt, or a turn stands on what is not before it.
        """
        if not self.turns or self.turns[0].kind is not TurnKind.PROMPT:
            raise ValueError("expected the prompt as the first turn")
        lengths: list[int] = []
        for index, turn in enumerate(self.turns):
            parent = -1 if turn.parent is None else turn.parent
            if not parent < index or (parent < 0) != (index == 0):
                raise ValueError(f"turn {index}: its parent {turn.parent} is not before it")
            if not 0 <= turn.kept <= (lengths[parent] if index else 0):
                raise ValueError(f"turn {index}: keeps {turn.kept} tokens, more than there are")
            lengths.append(turn.kept + len(turn.token_ids))

    @property
    def reward(self) -> float:
        """The weighted total of the ledger."""
        return self.rewards.total

    @property
    def error(self) -> str | None:
        """The failure's message, if there was one."""
        return self.failure.message if self.failure else None

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What failed: tool calls in their order, then what ended the episode."""
        found = [record.failure for record in self.tool_records if record.failure]
        if self.failure is not None and self.failure not in found:
            found.append(self.failure)
        return tuple(found)

    @property
    def prompt_ids(self) -> np.ndarray:
        """The first prompt's token ids."""
        return self.turns[0].token_ids

    @property
    def token_ids(self) -> np.ndarray:
        """The last turn's context: the whole dialogue where nothing was rewritten."""
        return self.branch(len(self.turns) - 1).token_ids

    @property
    def leaves(self) -> tuple[int, ...]:
        """The turns whose context no other turn extends; one, in a linear dialogue."""
        extended = {t.parent for t in self.turns[1:] if t.kept == self._length(t.parent or 0)}
        return tuple(i for i in range(len(self.turns)) if i not in extended)

    def branch(self, leaf: int) -> Branch:
        """Return the context of turn `leaf` with its streams."""
        places = self._path(leaf)
        *starts, length = accumulate((size for _, size in places), initial=0)
        streams = {name: np.zeros(length, dtype) for name, dtype in _STREAMS.items()}
        for (index, size), start in zip(places, starts, strict=True):
            turn = self.turns[index]
            for name in _STREAMS if turn.kind is TurnKind.POLICY else ("token_ids",):
                streams[name][start : start + size] = getattr(turn, name)[:size]
        return Branch(
            **streams, turns=tuple(index for index, _ in places), turn_starts=tuple(starts)
        )

    @property
    def messages(self) -> list[Message]:
        """The dialogue as messages, the prompt's included, along the last turn's parents."""
        chain: list[Turn] = []
        index: int | None = len(self.turns) - 1
        while index is not None:
            chain.append(self.turns[index])
            index = chain[-1].parent
        return [message for turn in reversed(chain) for message in turn.messages]

    @property
    def policy_turns(self) -> list[Turn]:
        """The turns that the policy wrote."""
        return [turn for turn in self.turns if turn.kind is TurnKind.POLICY]

    @property
    def tool_records(self) -> list[ToolRecord]:
        """Every tool call, in order."""
        return [record for turn in self.turns for record in turn.tool_records]

    @property
    def response_length(self) -> int:
        """Number of tokens behind the prompt, over all branches."""
        return sum(len(turn.token_ids) for turn in self.turns[1:])

    @property
    def answer(self) -> str:
        """The text of the last policy turn that called no tool, nor tried to; else empty."""
        tried = {turn.parent for turn in self.turns if turn.kind is TurnKind.TOOL}
        for index in reversed(range(len(self.turns))):
            turn = self.turns[index]
            if turn.kind is TurnKind.POLICY and index not in tried:
                message = turn.messages[0]
                if not message.get("tool_calls"):
                    return str(message.get("content") or "")
        return ""

    def _length(self, index: int) -> int:
        """Return the length of a turn's context."""
        return self.turns[index].kept + len(self.turns[index].token_ids)

    def _path(self, leaf: int) -> Sequence[tuple[int, int]]:
        """Return `(turn, how many of its first tokens)` along the context of `leaf`."""
        places: list[tuple[int, int]] = []
        index: int | None = leaf
        end = self._length(leaf)
        while index is not None:
            turn = self.turns[index]
            if end > turn.kept:
                places.append((index, end - turn.kept))
                end = turn.kept
            index = turn.parent
        return places[::-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """The rollouts of one prompt; the unit over which GRPO's baseline is computed.

    `sampling` holds the distribution's parameters by name, `template` the digest of the chat
    template that rendered it: what a recording needs to be understood.
    """

    id: str
    sample: Sample
    trajectories: tuple[Trajectory, ...]
    sampling: Mapping[str, float] = field(default_factory=dict)
    template: str = ""

    @property
    def kept(self) -> tuple[Trajectory, ...]:
        """The trajectories that train."""
        return tuple(t for t in self.trajectories if not t.dropped)
