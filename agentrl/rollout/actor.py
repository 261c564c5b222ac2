"""Who writes the policy's turns: an engine that is given tokens, or a chat endpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from agentrl.contracts.call import ParsedTurn, Schemas
from agentrl.contracts.engine import ChatBackend, Completion, Engine, Prompt, Sampling
from agentrl.contracts.tool import ToolDict
from agentrl.contracts.trajectory import TurnKind
from agentrl.rollout.record import Record
from agentrl.templates.formats.turn import ToolFormat
from agentrl.templates.render import Renderer


class Actor(Protocol):
    """Writes one policy turn."""

    async def write(
        self, record: Record, tools: Sequence[ToolDict], sampling: Sampling, *, session: str
    ) -> tuple[ParsedTurn, Completion]:
        """Return what the policy says next, read and as tokens.

        Raises:
            RolloutError: the engine failed.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenActor:
    """Token in, token out: what the engine samples is what is recorded."""

    engine: Engine
    renderer: Renderer
    tool_format: ToolFormat

    async def write(
        self, record: Record, tools: Sequence[ToolDict], sampling: Sampling, *, session: str
    ) -> tuple[ParsedTurn, Completion]:
        """Continue the record's context."""
        prompt = Prompt(token_ids=record.context)
        completion = await self.engine.generate(prompt, sampling, session=session)
        turn = record.count(TurnKind.POLICY)
        parsed = self.tool_format.parse(
            self.renderer.decode(completion.token_ids),
            turn=turn,
            schemas=_parameters(tools),
        )
        return parsed, completion


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatActor:
    """A chat endpoint; its tokens are what our tokenizer makes of the text, so nothing trains."""

    backend: ChatBackend
    renderer: Renderer

    async def write(
        self, record: Record, tools: Sequence[ToolDict], sampling: Sampling, *, session: str
    ) -> tuple[ParsedTurn, Completion]:
        """Send the record's messages."""
        parsed = await self.backend.reply(record.messages, tools, sampling, session=session)
        written = self.renderer.assistant(parsed.message(), tools)
        token_ids = written[: sampling.max_tokens]
        zeros = np.zeros(len(token_ids))
        fits = len(token_ids) == len(written)
        return parsed, Completion(
            token_ids=token_ids,
            logprobs=zeros.astype(np.float32),
            versions=zeros.astype(np.int32),
            finish_reason="stop" if fits else "length",
        )


def _parameters(tools: Sequence[ToolDict]) -> Schemas:
    return {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in tools}
