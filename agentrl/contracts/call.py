"""A policy's turn after reading: what it said, and the tool calls it wrote.

Whatever is an attempt to call and cannot be executed becomes a `ToolCall` with `error` set, so
that the policy sees what was wrong with it: an attempt to call is never taken for an answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


def read_call(name: str, arguments: dict[str, Any]) -> ToolCall:
    """Return a call that can be executed; the turn numbers it."""
    return ToolCall(id="", name=name, arguments=arguments)


def broken_call(error: str, name: str = UNKNOWN) -> ToolCall:
    """Return a call that cannot be executed, and why; the turn numbers it."""
    return ToolCall(id="", name=name, error=error)


def call_id(turn: int, index: int) -> str:
    """Return the id of a turn's call: nine alphanumeric characters, as Mistral's templates ask."""
    return f"call{_base36(turn, 2)}{_base36(index, 3)}"


def _base36(number: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits
