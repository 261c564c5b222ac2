"""An engine that plays completions written in advance, for tests without a model.

It ships with the product: give it what the policy is to say, run an episode, and look at
`requests` for what the policy was shown.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from typing_extensions import override

from agentrl.contracts.engine import Completion, Engine, Prompt, Sampling, WeightPublisher
from agentrl.engines.tokens import completion, token_list
from agentrl.errors import EngineError

Reply = Sequence[int] | str
"""What the policy writes in one turn: token ids, or text when a tokenizer is given."""

Script = Sequence[Reply] | Mapping[str, Sequence[Reply]] | Callable[[str, int, list[int]], Reply]
"""One list played from its start by every session, a list per session, or a function of
`(session, turn, prompt_ids)` with turns counted from 0."""


class Encoder(Protocol):
    """The part of a tokenizer that texts need."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the text's token ids."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScriptedRequest:
    """One call of `generate`, as the engine saw it."""

    session: str
    turn: int
    prompt_ids: list[int]
    sampling: Sampling


class ScriptedEngine(Engine):
    """Plays a script; every session has its own place in it.

    Args:
        script: what to say, see `Script`.
        tokenizer: encodes replies given as text.
        stop_token_id: appended to replies given as text, as a model ends its turn.
        delay_s: how long every call takes; calls do not wait for each other.
        token_delay_s: what every token written adds to that.
        logprob: the log-probability of every token.
    """

    def __init__(
        self,
        script: Script,
        *,
        tokenizer: Encoder | None = None,
        stop_token_id: int | None = None,
        delay_s: float = 0.0,
        token_delay_s: float = 0.0,
        logprob: float = 0.0,
    ) -> None:
        self.requests: list[ScriptedRequest] = []
        self.policy_version = 0
        self.failure: str | None = None
        self._script = script
        self._tokenizer = tokenizer
        self._stop_token_id = stop_token_id
        self._delay_s = delay_s
        self._token_delay_s = token_delay_s
        self._logprob = logprob
        self._turns: dict[str, int] = {}
        self._closed = False

    @override
    async def generate(self, prompt: Prompt, sampling: Sampling, *, session: str) -> Completion:
        """Play the session's next reply, cut at `max_tokens` and after the first stop token.

        Raises:
            EngineError: the script has no reply for this turn, or the engine is closed.
        """
        if self._closed:
            raise EngineError(f"request of {session}: the scripted engine is closed")
        prompt_ids = token_list(prompt, session)
        turn = self._turns.get(session, 0)
        self._turns[session] = turn + 1
        self.requests.append(
            ScriptedRequest(session=session, turn=turn, prompt_ids=prompt_ids, sampling=sampling)
        )
        version = self.policy_version
        written = self._encode(self._reply(session, turn, prompt_ids))
        places = (written == token for token in sampling.stop_token_ids)
        stops = [int(place.argmax()) for place in places if place.any()]
        token_ids = written[: min([sampling.max_tokens, *(i + 1 for i in stops)])]
        delay_s = self._delay_s + self._token_delay_s * len(token_ids)
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        # A reply that simply ends counts as stopped; only the budget cuts it short.
        stopped = bool(stops) and min(stops) < len(token_ids)
        complete = stopped or len(written) <= sampling.max_tokens
        logprobs = np.full(len(token_ids), self._logprob, np.float32)
        return completion(token_ids, logprobs, version, "stop" if complete else "length")

    @override
    async def score(self, token_ids: Sequence[int]) -> list[list[float]]:
        return [[self._logprob] * (len(token_ids) - 1)]

    @override
    async def update_weights(self, publisher: WeightPublisher) -> None:
        self.policy_version = publisher.version

    @override
    async def sleep(self) -> None:
        return None

    @override
    async def wake(self) -> None:
        return None

    @override
    def drain_metrics(self) -> dict[str, float]:
        return {}

    @override
    async def close(self) -> None:
        self._closed = True

    def _reply(self, session: str, turn: int, prompt_ids: list[int]) -> Reply:
        if callable(self._script):
            return self._script(session, turn, list(prompt_ids))
        replies = self._script
        if isinstance(replies, Mapping):
            if session not in replies:
                raise EngineError(
                    f"no script for session {session!r}; there are scripts for "
                    f"{sorted(replies)}: add one"
                )
            replies = replies[session]
        if turn >= len(replies):
            raise EngineError(
                f"the script of session {session!r} has {len(replies)} replies and was asked for "
                f"turn {turn} (from 0); write more replies or lower the turn limit"
            )
        return replies[turn]

    def _encode(self, reply: Reply) -> np.ndarray:
        if not isinstance(reply, str):
            return np.array(reply, np.int32)
        if self._tokenizer is None:
            raise EngineError(
                f"the script's reply {reply!r} is text; pass `tokenizer`, or write token ids"
            )
        end = [] if self._stop_token_id is None else [self._stop_token_id]
        ids = self._tokenizer.encode(reply, add_special_tokens=False)
        return np.array([*ids, *end], np.int32)
