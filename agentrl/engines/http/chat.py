"""An OpenAI-compatible chat endpoint as the policy, for evaluation and single rollouts.

It takes messages and gives text: neither the tokens that were sampled nor their log-probabilities
are known, so nothing can be learnt from it. The dialogue's record holds what the local tokenizer
makes of the text, with log-probabilities of 0.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentrl.contracts.call import ParsedTurn, broken_call, read_call
from agentrl.contracts.engine import Completion, Sampling
from agentrl.contracts.message import Message
from agentrl.contracts.tool import ToolCall
from agentrl.engines.http.api import Call
from agentrl.engines.http.engine import HttpEngine, understood
from agentrl.errors import EngineError

_NO_TOKENS = "a chat endpoint gives no token ids; use it for `eval` and `rollout` only"


class ChatEngine(HttpEngine):
    """Asks a chat endpoint for every policy turn."""

    health_path = "/v1/models"

    async def reply(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        sampling: Sampling,
        *,
        session: str,
    ) -> ParsedTurn:
        """Return the policy's next turn.

        Raises:
            EngineError: the deadline passed, or every attempt failed.
        """
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [_outgoing(message) for message in messages],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if tools:
            body["tools"] = list(tools)
        async with self._deadline(f"request of {session}"):
            answer, _ = await self._ask(Call(path="/v1/chat/completions", body=body), session)
        turn = sum(earlier["role"] == "assistant" for earlier in messages)
        with understood(answer):
            message = answer["choices"][0]["message"]
            calls = tuple(
                replace(_incoming(call["function"]), id=f"call_{turn}_{index}")
                for index, call in enumerate(message.get("tool_calls") or [])
            )
            return ParsedTurn(content=message.get("content") or "", calls=calls)

    async def generate(
        self, prompt_ids: list[int], sampling: Sampling, *, session: str
    ) -> Completion:
        """Refuse.

        Raises:
            EngineError: always.
        """
        raise EngineError(f"request of {session}: {_NO_TOKENS}")

    async def score(self, token_ids: list[int]) -> list[list[float]]:
        """Refuse.

        Raises:
            EngineError: always.
        """
        raise EngineError(_NO_TOKENS)


def _outgoing(message: Message) -> dict[str, Any]:
    """Write a message the way the protocol wants it: arguments as JSON text."""
    sent = dict(message)
    if message.get("tool_calls"):
        sent["tool_calls"] = [
            call
            | {
                "function": call["function"]
                | {"arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False)}
            }
            for call in message["tool_calls"]
        ]
    return sent


def _incoming(function: Mapping[str, Any]) -> ToolCall:
    """Read a call; what cannot be read becomes one with an error."""
    name = str(function.get("name"))
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except ValueError as error:
        return broken_call(f"`arguments` is not valid JSON ({error})", name)
    if not isinstance(arguments, dict):
        return broken_call(f"`arguments` must be an object, got {arguments!r}", name)
    return read_call(name, arguments)
