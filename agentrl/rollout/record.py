"""The growing record of an episode: tokens, turns and rewards so far, and what budgets leave."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from agentrl.config.rollout import RolloutConfig
from agentrl.contracts.engine import Completion
from agentrl.contracts.message import Message
from agentrl.contracts.reward import RewardEntry
from agentrl.contracts.tool import ToolOutcome, ToolRecord
from agentrl.contracts.trajectory import Termination, Turn, TurnKind


@dataclass(kw_only=True, slots=True)
class Record:
    """Everything one episode has produced; only ever appended to."""

    config: RolloutConfig
    prompt_ids: list[int]
    prompt: list[Message]
    context_limit: int
    started: float = field(default_factory=time.monotonic)
    turns: list[Turn] = field(default_factory=list)
    entries: list[RewardEntry] = field(default_factory=list)

    @property
    def token_ids(self) -> list[int]:
        """The dialogue's tokens so far."""
        return [*self.prompt_ids, *(t for turn in self.turns for t in turn.token_ids)]

    @property
    def messages(self) -> list[Message]:
        """The dialogue's messages so far."""
        return [*self.prompt, *(m for turn in self.turns for m in turn.messages)]

    @property
    def room(self) -> int:
        """How many more tokens the response and the context budgets allow."""
        response = sum(len(turn.token_ids) for turn in self.turns)
        context = self.context_limit - len(self.prompt_ids) - response
        return min(self.config.max_response_tokens - response, context)

    @property
    def full(self) -> Termination:
        """Which budget is the binding one."""
        by_context = self.context_limit - len(self.prompt_ids) < self.config.max_response_tokens
        return Termination.MAX_CONTEXT if by_context else Termination.MAX_TOKENS

    def count(self, kind: TurnKind) -> int:
        """Return the number of turns of a kind."""
        return sum(turn.kind is kind for turn in self.turns)

    def elapsed(self) -> float:
        """Return seconds since the episode began."""
        return time.monotonic() - self.started

    def add_policy(self, completion: Completion, message: Message, *, began_s: float) -> None:
        """Append what the policy wrote."""
        self.turns.append(
            Turn(
                kind=TurnKind.POLICY,
                messages=(message,),
                token_ids=tuple(completion.token_ids),
                mask=(1,) * len(completion.token_ids),
                logprobs=tuple(completion.logprobs),
                policy_versions=tuple(completion.policy_versions),
                started_s=began_s,
                duration_s=self.elapsed() - began_s,
            )
        )

    def add_reply(
        self,
        kind: TurnKind,
        messages: Sequence[Message],
        delta: Sequence[int],
        *,
        began_s: float,
        records: Sequence[ToolRecord] = (),
    ) -> bool:
        """Append what the policy is answered; return whether its tokens fit the budgets.

        A reply that leaves no room for another policy token is kept without its tokens, so that a
        response never exceeds its budget and no call is lost from the record.
        """
        fits = len(delta) < self.room
        token_ids = tuple(delta) if fits else ()
        self.turns.append(
            Turn(
                kind=kind,
                messages=tuple(messages),
                token_ids=token_ids,
                mask=(0,) * len(token_ids),
                tool_records=tuple(records),
                started_s=began_s,
                duration_s=self.elapsed() - began_s,
            )
        )
        return fits

    def reward(self, source: str, value: float) -> None:
        """Enter a reward for the latest turn."""
        self.entries.append(RewardEntry(source=source, value=value, turn=len(self.turns) - 1))

    def has_outcome(self, outcome: ToolOutcome) -> bool:
        """Whether any tool call ended so."""
        return any(r.outcome is outcome for turn in self.turns for r in turn.tool_records)
