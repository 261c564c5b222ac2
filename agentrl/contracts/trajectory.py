"""What one episode left behind: turns of tokens, rewards, and one reason why it ended.

A `Trajectory` is immutable and checked on construction. Token ids of the whole dialogue are
`prompt_ids + turn.token_ids for every turn`; nothing is ever re-tokenised. A `Group` holds the
rollouts of one prompt.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from agentrl.contracts.message import Message
from agentrl.contracts.reward import RewardLedger
from agentrl.contracts.sample import Sample
from agentrl.contracts.tool import ToolRecord


class TurnKind(StrEnum):
    """Who wrote a turn's tokens."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """A stretch of tokens by one writer.

    `token_ids`, `mask` (and a policy turn's `logprobs` and `policy_versions`, the version of the
    weights that wrote each token) have equal length. `mask` is 1 where a token is trained on: only
    in policy turns. A tool turn holds one message and one record per parallel call, rendered as
    one delta. Times are seconds since the episode began.
    """

    kind: TurnKind
    messages: tuple[Message, ...]
    token_ids: tuple[int, ...]
    mask: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    policy_versions: tuple[int, ...] = ()
    tool_records: tuple[ToolRecord, ...] = ()
    started_s: float = 0.0
    duration_s: float = 0.0

    def __post_init__(self) -> None:
        """Check the invariants.

        Raises:
            ValueError: lengths differ, or log-probabilities or mask stand where no policy wrote.
        """
        size = len(self.token_ids)
        policy = self.kind is TurnKind.POLICY
        if len(self.mask) != size:
            raise ValueError(f"{self.kind} turn: mask has {len(self.mask)} of {size} tokens")
        if len(self.logprobs) != (size if policy else 0):
            raise ValueError(
                f"{self.kind} turn: expected {size if policy else 0} logprobs, "
                f"got {len(self.logprobs)}"
            )
        if any(bit not in (0, 1) for bit in self.mask) or (any(self.mask) and not policy):
            raise ValueError(f"{self.kind} turn: mask must be 0, or 1 on tokens the policy wrote")
        if len(self.policy_versions) != len(self.logprobs):
            raise ValueError(
                f"{self.kind} turn: expected {len(self.logprobs)} policy_versions, "
                f"got {len(self.policy_versions)}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectory:
    """One finished episode.

    `dropped` trajectories are recorded but enter neither the loss nor the group's baseline.
    `tools` are the schemas that were offered; `error` is the text of the failure, if any.
    """

    id: str
    sample: Sample
    prompt_ids: tuple[int, ...]
    turns: tuple[Turn, ...]
    rewards: RewardLedger
    termination: Termination
    tools: tuple[str, ...] = ()
    error: str | None = None
    dropped: bool = False
    started_at: float = 0.0
    duration_s: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def reward(self) -> float:
        """The weighted total of the ledger."""
        return self.rewards.total

    @property
    def token_ids(self) -> list[int]:
        """All token ids, prompt included: length T."""
        return [*self.prompt_ids, *(t for turn in self.turns for t in turn.token_ids)]

    @property
    def response_mask(self) -> list[int]:
        """1 on trained tokens, length T; 0 over the prompt, tools and user."""
        return [0] * len(self.prompt_ids) + [bit for turn in self.turns for bit in turn.mask]

    @property
    def logprobs(self) -> list[float]:
        """The engine's log-probabilities, length T; 0.0 where the policy did not write."""
        values = [0.0] * len(self.prompt_ids)
        for turn in self.turns:
            values.extend(turn.logprobs or [0.0] * len(turn.token_ids))
        return values

    @property
    def messages(self) -> list[Message]:
        """The dialogue as messages, the prompt's included."""
        return [*self.sample.prompt, *(m for turn in self.turns for m in turn.messages)]

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
        """Number of tokens after the prompt."""
        return sum(len(turn.token_ids) for turn in self.turns)

    @property
    def answer(self) -> str:
        """The text of the last policy turn that called no tool; empty if there is none."""
        for turn in reversed(self.policy_turns):
            message = turn.messages[0]
            if not message.get("tool_calls"):
                return str(message.get("content") or "")
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """The rollouts of one prompt; the unit over which GRPO's baseline is computed."""

    id: str
    sample: Sample
    trajectories: tuple[Trajectory, ...]

    @property
    def kept(self) -> tuple[Trajectory, ...]:
        """The trajectories that train."""
        return tuple(t for t in self.trajectories if not t.dropped)
