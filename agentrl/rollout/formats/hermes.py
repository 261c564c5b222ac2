"""Hermes-style tool calls: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.

The form of Hermes, Qwen2.5 and Qwen3, and the one that a template which knows nothing of tools
is given. A turn may hold several calls. The tags are ordinary added tokens or plain text.
"""

import json
import re
from typing import Any

from agentrl.contracts.call import ParsedTurn, Schemas, broken_call, read_call
from agentrl.contracts.tool import ToolCall
from agentrl.rollout.formats.split import Reading, split_turn
from agentrl.rollout.formats.values import ValueFault, read_json

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_EXPECTED = f'expected {OPEN}{{"name": "...", "arguments": {{...}}}}{CLOSE}'
_SPACE = re.compile(r"\s*")


class HermesFormat:
    """Reads Hermes-style calls; the arguments' types are JSON's own."""

    name = "hermes"
    markup: tuple[str, ...] = (OPEN, CLOSE)
    stops: tuple[str, ...] = ()

    def parse(self, text: str, *, turn: int = 0, schemas: Schemas | None = None) -> ParsedTurn:
        """Split a policy turn into content and calls; `schemas` are not needed."""
        return parse_tool_calls(text, turn=turn)


def parse_tool_calls(text: str, *, turn: int = 0) -> ParsedTurn:
    """Split a policy turn into content and calls, in order."""
    return split_turn(text, f"{OPEN}|{CLOSE}", _read, turn=turn)


def format_tool_call(name: str, arguments: dict[str, Any]) -> str:
    """Write a call the way `parse_tool_calls` reads it."""
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"{OPEN}\n{body}\n{CLOSE}"


def _read(text: str, match: re.Match[str], since: int) -> Reading:
    if match[0] == CLOSE:
        if "{" not in text[since : match.start()]:
            return Reading(end=match.end(), shown=CLOSE)
        call = broken_call(f"the tool call has no {OPEN} before it; {_EXPECTED}")
        return Reading(calls=(call,), end=match.end(), shown=CLOSE)
    call, end = _read_call(text, match.end())
    shown = "" if call.error is None else text[match.start() : end]
    return Reading(calls=(call,), end=end, shown=shown)


def _read_call(text: str, start: int) -> tuple[ToolCall, int]:
    """Read the call whose body begins at `start`; return it and where reading goes on."""
    space = _SPACE.match(text, start)
    try:
        # The decoder, not a search for the closing tag: a string argument may contain the tag.
        body, end = read_json(text, space.end() if space else start)
    except ValueFault as error:
        close = text.find(CLOSE, start)
        position = len(text) if close < 0 else close + len(CLOSE)
        why = "is cut off" if close < 0 else f"is not valid JSON ({error})"
        return broken_call(f"the tool call {why}; {_EXPECTED}"), position
    close = text.find(CLOSE, end)
    if close < 0 or text[end:close].strip():
        position = len(text) if close < 0 else close + len(CLOSE)
        why = "is not closed" if close < 0 else "has text after its JSON object"
        return broken_call(f"the tool call {why}; {_EXPECTED}"), position
    return call_of_body(body, _EXPECTED), close + len(CLOSE)


def call_of_body(body: Any, expected: str) -> ToolCall:
    """Return the call that a JSON object describes; `expected` ends the message of a fault."""
    if not isinstance(body, dict) or not isinstance(body.get("name"), str):
        return broken_call(f"the tool call names no tool; {expected}")
    name = body["name"]
    key = "parameters" if "parameters" in body and "arguments" not in body else "arguments"
    arguments = body.get(key, {})
    if isinstance(arguments, str):
        try:
            arguments, _ = read_json(arguments.strip())
        except ValueFault as error:
            return broken_call(
                f"the tool call's `{key}` is not valid JSON ({error}); {expected}", name
            )
    if not isinstance(arguments, dict):
        kind = type(arguments).__name__
        return broken_call(
            f"the tool call's `{key}` must be an object, got {kind}; {expected}", name
        )
    return read_call(name, arguments)
