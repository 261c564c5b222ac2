"""The growing record of an episode: its turns and rewards so far, and what the budgets leave."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from agentrl.config.rollout import RolloutConfig
from agentrl.contracts.engine import Completion
from agentrl.contracts.message import Message
from agentrl.contracts.reward import RewardEntry
from agentrl.contracts.tool import ToolRecord
from agentrl.contracts.trajectory import Termination, Turn, TurnKind
from agentrl.templates.render import Continuation


@dataclass(kw_only=True, slots=True)
class Record:
    """Everything one episode has produced; only ever appended to.

    `context` (int32) is what the policy sees next: the context of the latest turn.
    """

    config: RolloutConfig
    context_limit: int
    turns: list[Turn]
    context: np.ndarray
    started: float = field(default_factory=time.monotonic)
    entries: list[RewardEntry] = field(default_factory=list)

    @classmethod
    def begin(cls, prompt: Turn, *, config: RolloutConfig, context_limit: int) -> "Record":
        """Start with a prompt."""
        context = prompt.token_ids
        return cls(config=config, context_limit=context_limit, turns=[prompt], context=context)

    @property
    def messages(self) -> list[Message]:
        """The dialogue's messages so far."""
        return [message for turn in self.turns for message in turn.messages]

    @property
    def room(self) -> int:
        """How many more tokens the response and the context budgets allow."""
        return self._room(len(self.context))

    @property
    def full(self) -> Termination:
        """Which budget is the binding one."""
        by_context = self.context_limit - self._prompt_length < self.config.max_response_tokens
        return Termination.MAX_CONTEXT if by_context else Termination.MAX_TOKENS

    def count(self, kind: TurnKind) -> int:
        """Return the number of turns of a kind."""
        return [turn.kind for turn in self.turns].count(kind)

    def elapsed(self) -> float:
        """Return seconds since the episode began."""
        return time.monotonic() - self.started

    def add_policy(self, completion: Completion, message: Message, *, began_s: float) -> None:
        """Append what the policy wrote."""
        self._append(
            Turn(
                kind=TurnKind.POLICY,
                messages=(message,),
                token_ids=completion.token_ids,
                mask=np.ones(len(completion.token_ids), np.uint8),
                logprobs=completion.logprobs,
                versions=completion.versions,
                parent=len(self.turns) - 1,
                kept=len(self.context),
                started_s=began_s,
                duration_s=self.elapsed() - began_s,
            )
        )

    def add_reply(
        self,
        kind: TurnKind,
        messages: Sequence[Message],
        continuation: Continuation | None,
        *,
        began_s: float,
        records: Sequence[ToolRecord] = (),
    ) -> bool:
        """Append what the policy is answered; return whether its tokens fit the budgets.

        A reply that leaves no room for another policy token is kept without its tokens, so that a
        response never exceeds its budget and no call is lost from the record; so is one that
        nobody reads any more (`continuation` None).
        """
        fits = (
            continuation is not None
            and self._room(continuation.kept + len(continuation.token_ids)) > 0
        )
        if continuation is None or not fits:
            continuation = Continuation(kept=len(self.context), token_ids=np.zeros(0, np.int32))
        self._append(
            Turn(
                kind=kind,
                messages=tuple(messages),
                token_ids=continuation.token_ids,
                tool_records=tuple(records),
                parent=len(self.turns) - 1,
                kept=continuation.kept,
                started_s=began_s,
                duration_s=self.elapsed() - began_s,
            )
        )
        return fits

    def reward(self, source: str, value: float) -> None:
        """Enter a reward for the latest turn."""
        self.entries.append(RewardEntry(source=source, value=value, turn=len(self.turns) - 1))

    @property
    def _prompt_length(self) -> int:
        return len(self.turns[0].token_ids)

    def _room(self, length: int) -> int:
        """Return the tokens that a context of `length` may still grow by."""
        response = self.config.max_response_tokens - (length - self._prompt_length)
        return min(response, self.context_limit - length)

    def _append(self, turn: Turn) -> None:
        self.turns.append(turn)
        self.context = np.concatenate([self.context[: turn.kept], turn.token_ids])
