"""What every tool-call format has in common: the parsed turn, and the interface of a format.

Whatever is an attempt to call and cannot be executed becomes a `ToolCall` with `error` set, so
that the policy sees what was wrong with it: an attempt to call is never taken for an answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from agentrl.contracts.message import Message
from agentrl.contracts.tool import ToolCall

UNKNOWN = "unknown"
"""The name of a call whose name cannot be read."""

Schemas = Mapping[str, dict[str, Any]]
"""The JSON Schema of each offered tool's parameters, by the tool's name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedTurn:
    """A policy turn's text, split: `content` is what stands outside the calls."""

    content: str
    calls: tuple[ToolCall, ...] = ()

    def message(self) -> Message:
        """Return the assistant message; only calls that could be read appear as `tool_calls`."""
        message: Message = {"role": "assistant", "content": self.content}
        readable = [call for call in self.calls if call.error is None]
        if readable:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in readable
            ]
        return message


class ToolFormat(Protocol):
    """One way of writing tool calls. Holds no state between turns."""

    @property
    def name(self) -> str:
        """The name that `rollout.tool_format` selects it by."""

    def parse(
        self, text: str, *, id_prefix: str = "call", schemas: Schemas | None = None
    ) -> ParsedTurn:
        """Split a policy turn into content and calls, in order. Never raises.

        Args:
            text: the turn with its special tokens and without its stop token.
            id_prefix: calls are named `{id_prefix}_{index}`.
            schemas: of the offered tools; formats whose values carry no type need them.
        """


def read_call(name: str, arguments: dict[str, Any]) -> ToolCall:
    """Return a call that can be executed; the turn numbers it."""
    return ToolCall(id="", name=name, arguments=arguments)


def broken_call(error: str, name: str = UNKNOWN) -> ToolCall:
    """Return a call that cannot be executed, and why; the turn numbers it."""
    return ToolCall(id="", name=name, error=error)
