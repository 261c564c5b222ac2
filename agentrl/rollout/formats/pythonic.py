"""Pythonic tool calls: `[f(a=1), g(b="x")]`, as Llama 3.2, Llama 4, LFM2 and ToolACE write them.

The list may stand between special tokens, `<|python_start|>` and `<|python_end|>` or LFM2's
`<|tool_call_start|>` and `<|tool_call_end|>`. A bare list is an attempt if it names an offered tool
or passes arguments by name, as no list in an answer does. Names of tools and arguments may be any
text that a schema allows (`get-weather`, `from`), where Python would refuse them.
"""

import re

from agentrl.contracts.call import UNKNOWN, ParsedTurn, Schemas, broken_call, read_call
from agentrl.contracts.tool import ToolCall
from agentrl.rollout.formats.literals import literal_end, read_literal
from agentrl.rollout.formats.split import Reading, split_turn
from agentrl.rollout.formats.values import ValueFault, check_value

STARTS = ("<|python_start|>", "<|tool_call_start|>")
ENDS = ("<|python_end|>", "<|tool_call_end|>")
_START, _END = ("|".join(map(re.escape, tokens)) for tokens in (STARTS, ENDS))
_EXPECTED = 'expected [name(key=value, ...), ...] with literal values, as in [f(a=1), g(b="x")]'
_NAME, _KEY = r"[\w.-]+", r"[^\s()\[\]{},=:'\"]+"
_OPENER = rf"{_START}|(?<![\w\])])\[(?=\s*{_NAME}\s*\()"
_LIST = re.compile(r"\s*\[")
_HEAD = re.compile(rf"\s*({_NAME})\s*\(")
_BY_NAME = re.compile(rf"\s*(?:\)|\Z|{_KEY}\s*=(?!=))")
_ARGUMENT = re.compile(rf"\s*({_KEY})\s*=(?!=)")
_NEXT_ARGUMENT = re.compile(r"\s*(,\s*\)|[,)])")
_NEXT_CALL = re.compile(r"\s*(,\s*\]|[,\]])")
_END_OF_CALL = re.compile(r"\s*\)")
_CUT = re.compile(rf"(?:{_START})?\s*\[?\s*[\w.-]*\s*\Z")
_AFTER = re.compile(rf"\s*(?:{_END})")
_CLOSING = re.compile(_END)


class PythonicFormat:
    """Reads lists of calls in Python's syntax; the arguments' types are those of the literals."""

    name = "pythonic"
    markup: tuple[str, ...] = (*STARTS, *ENDS)
    stops: tuple[str, ...] = ("<|eom_id|>",)

    def parse(self, text: str, *, turn: int = 0, schemas: Schemas | None = None) -> ParsedTurn:
        """Split a policy turn into content and calls; `schemas` name the offered tools."""

        def read(text: str, match: re.Match[str], since: int) -> Reading:
            return _read(text, match, schemas or {})

        return split_turn(text, _OPENER, read, turn=turn)


def _read(text: str, match: re.Match[str], schemas: Schemas) -> Reading:
    opening = _LIST.match(text, match.end() if match[0] in STARTS else match.start())
    if opening is None:
        return _stop([], text, match.start(), match.start(), f"has no list behind {match[0]}")
    if match[0] not in STARTS:
        head = _HEAD.match(text, opening.end())
        if head is None or not (head[1] in schemas or _BY_NAME.match(text, head.end())):
            return Reading(end=match.end(), shown=match[0])
    return _read_list(text, match.start(), opening.end())


def _read_list(text: str, start: int, position: int) -> Reading:
    """Read the calls from `position` on, of a list that begins at `start`."""
    calls: list[ToolCall] = []
    shown: list[str] = []
    while True:
        head = _HEAD.match(text, position)
        if head is None:
            return _stop(calls, text, start, position, "does not begin with name(")
        try:
            call, end = _read_call(text, head)
        except ValueFault as error:
            return _stop(calls, text, start, position, str(error), head[1])
        calls.append(call)
        if call.error is not None:
            shown.append(text[position:end])
        following = _NEXT_CALL.match(text, end)
        if following is None:
            return _stop(calls, text, start, end, "is followed by neither , nor ]")
        position = following.end()
        if following[1].endswith("]"):
            after = _AFTER.match(text, position)
            end = after.end() if after else position
            return Reading(calls=tuple(calls), end=end, shown=" ".join(shown))


def _read_call(text: str, head: re.Match[str]) -> tuple[ToolCall, int]:
    """Read the call behind `name(`; return it and where it ends.

    Raises:
        ValueFault: where it ends cannot be told; it is cut off, most often.
    """
    name, position = head[1], head.end()
    arguments: dict[str, object] = {}
    faults: list[str] = []
    closing = _END_OF_CALL.match(text, position)
    while closing is None:
        key = _ARGUMENT.match(text, position)
        start = key.end() if key else position
        try:
            end = literal_end(text, start)
        except ValueFault as error:
            raise ValueFault(f"is cut off or misquoted: {error}", error.position) from error
        following = _NEXT_ARGUMENT.match(text, end)
        if following is None:
            raise ValueFault("is cut off" if end == len(text) else "is not closed by )", end)
        try:
            _add(arguments, key[1] if key else None, text[start:end])
        except ValueError as error:
            faults.append(str(error))
        position = following.end()
        closing = following if following[1].endswith(")") else None
    if faults:
        return broken_call(f"the tool call: {faults[0]}; {_EXPECTED}", name), closing.end()
    return read_call(name, arguments), closing.end()


def _add(arguments: dict[str, object], key: str | None, source: str) -> None:
    """Add an argument to those before it.

    Raises:
        ValueError: it is no literal, or its name does not do; the message says why.
    """
    value = read_literal(source)
    if key is None:
        raise ValueError(f"the argument {source.strip()!r:.40} has no name")
    if key in arguments:
        raise ValueError(f"the argument {key} is written twice")
    check_value(key)
    arguments[key] = value


def _stop(
    calls: list[ToolCall], text: str, start: int, fault: int, why: str, name: str = UNKNOWN
) -> Reading:
    """Give up on a list: the calls before the fault stand, and nothing behind it is read."""
    if _CUT.match(text, fault):
        why = "is cut off"
    close = _CLOSING.search(text, fault)
    end = close.end() if close else len(text)
    call = broken_call(f"the tool call {why}; {_EXPECTED}", name)
    return Reading(calls=(*calls, call), end=end, shown=text[fault if calls else start : end])
