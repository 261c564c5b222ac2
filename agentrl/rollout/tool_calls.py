"""Hermes-style tool calls in a policy's text: `<tool_call>{"name", "arguments"}</tool_call>`.

A turn may hold several. Calls inside a thinking block are ignored. Whatever stands in a
`<tool_call>` and cannot be executed becomes a `ToolCall` with `error` set, so that the policy
sees what was wrong with it: an attempt to call is never taken for an answer.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from agentrl.contracts.message import Message
from agentrl.contracts.tool import ToolCall

OPEN, CLOSE = "<tool_call>", "</tool_call>"
THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
UNKNOWN = "unknown"
"""The name of a call whose name cannot be read."""

_EXPECTED = 'expected <tool_call>{"name": "...", "arguments": {...}}</tool_call>'
_DEEPEST = 64
"""Levels of nesting in a call; JSON readers refuse a trace of some 200."""
_NEXT_BLOCK = re.compile("|".join((OPEN, CLOSE, THINK_OPEN)))
_SPACE = re.compile(r"\s*")
_THINKING = re.compile("|".join((OPEN, THINK_OPEN, THINK_CLOSE)))


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


def parse_tool_calls(text: str, *, id_prefix: str = "call") -> ParsedTurn:
    """Split a policy turn into content and calls, in order. Ids are `{id_prefix}_{index}`.

    A thinking block that opened in the prompt (`... </think>` without its start) is honoured; one
    that never closes hides everything after it.
    """
    calls: list[ToolCall] = []
    outside: list[str] = []
    position = _end_of_open_thinking(text)
    outside.append(text[:position])
    while match := _NEXT_BLOCK.search(text, position):
        before = text[position : match.start()]
        outside.append(before)
        if match[0] == CLOSE:
            if "{" in before:
                error = f"the tool call has no {OPEN} before it; {_EXPECTED}"
                calls.append(_broken(f"{id_prefix}_{len(calls)}", error))
            position = match.end()
            outside.append(CLOSE)
            continue
        if match[0] == THINK_OPEN:
            end = text.find(THINK_CLOSE, match.end())
            position = len(text) if end < 0 else end + len(THINK_CLOSE)
            outside.append(text[match.start() : position])
            continue
        call, position = _read_call(text, match.end(), f"{id_prefix}_{len(calls)}")
        calls.append(call)
        if call.error is not None:
            outside.append(text[match.start() : position])
    outside.append(text[position:])
    return ParsedTurn(content="".join(outside).strip(), calls=tuple(calls))


def format_tool_call(name: str, arguments: dict[str, Any]) -> str:
    """Write a call the way `parse_tool_calls` reads it."""
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"{OPEN}\n{body}\n{CLOSE}"


def _end_of_open_thinking(text: str) -> int:
    """Return where the thinking that the prompt opened ends; 0 when there is none."""
    if THINK_CLOSE not in text:
        return 0
    position = 0
    while match := _THINKING.search(text, position):
        if match[0] != OPEN:
            return match.end() if match[0] == THINK_CLOSE else 0
        # What stands inside a whole call is an argument's text, not the end of thinking.
        call, end = _read_call(text, match.end(), "")
        position = end if call.error is None else match.end()
    return 0


def _read_call(text: str, start: int, call_id: str) -> tuple[ToolCall, int]:
    """Read the call whose body begins at `start`; return it and where reading goes on."""
    space = _SPACE.match(text, start)
    body_at = space.end() if space else start
    try:
        # The decoder, not a search for the closing tag: a string argument may contain the tag.
        body, end = _read_json(text, body_at)
    except ValueError as error:
        close = text.find(CLOSE, start)
        position = len(text) if close < 0 else close + len(CLOSE)
        why = "is cut off" if close < 0 else f"is not valid JSON ({error})"
        return _broken(call_id, f"the tool call {why}; {_EXPECTED}"), position
    close = text.find(CLOSE, end)
    if close < 0 or text[end:close].strip():
        position = len(text) if close < 0 else close + len(CLOSE)
        why = "is not closed" if close < 0 else "has text after its JSON object"
        return _broken(call_id, f"the tool call {why}; {_EXPECTED}"), position
    return _from_body(body, call_id), close + len(CLOSE)


def _read_json(text: str, start: int) -> tuple[Any, int]:
    """Return the value at `start` and where it ends; it can be written to a file and read back.

    Raises:
        ValueError: it is not JSON, or nothing else could hold it; the message says why.
    """
    try:
        value, end = json.JSONDecoder(strict=False).raw_decode(text, start)
        _check_depth(value)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except json.JSONDecodeError as error:
        raise ValueError(error.msg) from error
    except RecursionError as error:
        raise ValueError(f"nested deeper than {_DEEPEST}") from error
    except UnicodeEncodeError as error:
        raise ValueError("a string holds a lone surrogate") from error
    return value, end


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    if level:
        raise ValueError(f"nested deeper than {_DEEPEST}")


def _from_body(body: Any, call_id: str) -> ToolCall:
    if not isinstance(body, dict) or not isinstance(body.get("name"), str):
        return _broken(call_id, f"the tool call names no tool; {_EXPECTED}")
    arguments = body.get("arguments", body.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments, _ = _read_json(arguments.strip(), 0)
        except ValueError as error:
            return _broken(
                call_id, f"`arguments` is not valid JSON ({error}); {_EXPECTED}", body["name"]
            )
    if not isinstance(arguments, dict):
        kind = type(arguments).__name__
        return _broken(
            call_id, f"`arguments` must be an object, got {kind}; {_EXPECTED}", body["name"]
        )
    return ToolCall(id=call_id, name=body["name"], arguments=arguments)


def _broken(call_id: str, error: str, name: str = UNKNOWN) -> ToolCall:
    return ToolCall(id=call_id, name=name, error=error)
