"""An OpenAI-compatible chat endpoint as the policy, for evaluation and single rollouts.

It takes messages and gives text: neither the tokens that were sampled nor their log-probabilities
are known, so nothing can be learnt from it. The dialogue's record holds what the local tokenizer
makes of the text, with log-probabilities of 0.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from typing_extensions import override

from agentrl.config.engine import HttpEngineConfig
from agentrl.contracts.call import ParsedTurn, broken_call, read_call
from agentrl.contracts.engine import ChatBackend, Sampling
from agentrl.contracts.message import Message, media_of
from agentrl.contracts.tool import ToolCall
from agentrl.engines.http.api import Call
from agentrl.engines.http.serving import ServerPool, understood
from agentrl.errors import EngineError, NotReadyError


class ChatEngine(ChatBackend):
    """Asks a chat endpoint for every policy turn. Call `start` first."""

    def __init__(self, config: HttpEngineConfig) -> None:
        self.failure: str | None = None
        self._pool = ServerPool(config, health_path="/v1/models")
        self._model = config.model

    async def start(self) -> None:
        """Find out who is there, and what their model is called.

        Raises:
            ConfigError: the key is not there.
            NotReadyError: no replica answers.
        """
        await self._pool.start()
        try:
            self._model = self._model or await self._pool.served_model()
        except NotReadyError:
            await self.close()
            raise

    async def add(self, url: str) -> None:
        """Take in another endpoint.

        Raises:
            ConfigError: it is in use already.
            NotReadyError: it does not answer.
        """
        await self._pool.add(url)

    async def remove(self, url: str) -> None:
        """Let go of an endpoint when it has answered what it was asked; it stays up.

        Raises:
            ConfigError: it is not in use, or the last one.
        """
        await self._pool.remove(url)

    @override
    async def reply(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        sampling: Sampling,
        *,
        session: str,
    ) -> ParsedTurn:
        if any(media_of(message["content"]) for message in messages):
            raise EngineError(
                f"request of {session}: the dialogue holds images or videos, and the policy has no "
                f"eyes yet; use samples and tools of text alone"
            )
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [_outgoing(message) for message in messages],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if tools:
            body["tools"] = list(tools)
        async with self._pool.deadline(f"request of {session}"):
            answer, _ = await self._pool.ask(Call(path="/v1/chat/completions", body=body), session)
        turn = sum(earlier["role"] == "assistant" for earlier in messages)
        with understood(answer):
            message = answer["choices"][0]["message"]
            calls = tuple(
                replace(_incoming(call["function"]), id=f"call_{turn}_{index}")
                for index, call in enumerate(message.get("tool_calls") or [])
            )
            return ParsedTurn(content=message.get("content") or "", calls=calls)

    @override
    def drain_metrics(self) -> dict[str, float]:
        return {"engine/replicas": float(len(self._pool.replicas.serving))}

    @override
    async def close(self) -> None:
        await self._pool.close()


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
