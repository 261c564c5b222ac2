"""How the episodes of one group begin: what they share is made once, for all of them."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agentrl.contracts.message import Message
from agentrl.contracts.sample import Sample
from agentrl.contracts.tool import BaseTool, ToolDict
from agentrl.contracts.trajectory import Turn, TurnKind
from agentrl.errors import RolloutError
from agentrl.templates.render import Renderer

LONG_CHARS = 16_000
"""Text of more characters is rendered and tokenised in a thread: it takes over 10 ms."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """A sample's tools, their schemas and its prompt; why that cannot be rendered, if so."""

    sample: Sample
    tools: Mapping[str, BaseTool]
    schemas: tuple[ToolDict, ...]
    prompt: Turn
    error: RolloutError | None = None

    @classmethod
    async def render(
        cls, sample: Sample, tools: Mapping[str, BaseTool], renderer: Renderer
    ) -> "Opening":
        """Render the prompt of a sample with the tools that it is offered."""
        schemas = tuple(tool.tool_schema.for_template() for tool in tools.values())
        token_ids, error = np.zeros(0, np.int32), None
        try:
            if num_chars(sample.prompt) > LONG_CHARS:
                token_ids = await asyncio.to_thread(renderer.prompt, sample.prompt, schemas)
            else:
                token_ids = renderer.prompt(sample.prompt, schemas)
        except RolloutError as refusal:
            error = refusal
        prompt = Turn(kind=TurnKind.PROMPT, messages=tuple(sample.prompt), token_ids=token_ids)
        return cls(sample=sample, tools=tools, schemas=schemas, prompt=prompt, error=error)


def num_chars(messages: Sequence[Message]) -> int:
    """Return about how many characters of text the messages hold."""
    return sum(len(str(message.get("content"))) for message in messages)
