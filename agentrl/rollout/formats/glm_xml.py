"""GLM 4.5's tool calls: a name, and keys and values in tags.

    <tool_call>NAME
    <arg_key>KEY</arg_key>
    <arg_value>VALUE</arg_value>
    </tool_call>

GLM 4.7 writes the same without line breaks. Values are typed by the tool's schema; a string's
value is taken word for word.
"""

import re
from typing import Any

from agentrl.contracts.call import UNKNOWN, ParsedTurn, Schemas, broken_call, read_call
from agentrl.rollout.formats.split import Reading, split_turn
from agentrl.rollout.formats.typed_text import property_schema, typed_value
from agentrl.rollout.formats.values import check_value

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_TAGS = ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")
_EXPECTED = (
    f"expected {OPEN}NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value>{CLOSE}, with one pair "
    f"for each argument"
)
_NAME = re.compile(r"\s*([^<>\s]+)\s*(?=<)")
_KEY = re.compile(r"\s*<arg_key>(.*?)</arg_key>\s*<arg_value>", re.DOTALL)
_VALUE_END = re.compile(rf"</arg_value>(?=\s*(?:<arg_key>|{CLOSE}))")
_CALL_END = re.compile(rf"\s*{CLOSE}")


class GlmXmlFormat:
    """Reads GLM's calls."""

    name = "glm45"
    markup: tuple[str, ...] = (OPEN, CLOSE, *_TAGS)
    stops: tuple[str, ...] = ("<|observation|>", "<|user|>")

    def parse(self, text: str, *, turn: int = 0, schemas: Schemas | None = None) -> ParsedTurn:
        """Split a policy turn into content and calls; `schemas` give the arguments their types."""

        def read(text: str, match: re.Match[str], since: int) -> Reading:
            return _read(text, match, schemas or {})

        return split_turn(text, OPEN, read, turn=turn)


def _read(text: str, match: re.Match[str], schemas: Schemas) -> Reading:
    start = match.start()
    heading = _NAME.match(text, match.end())
    if heading is None:
        return _fault(text, start, "names no tool")
    name, position = heading[1], heading.end()
    arguments: dict[str, Any] = {}
    parameters = schemas.get(name)
    while pair := _KEY.match(text, position):
        key = pair[1].strip()
        end = _VALUE_END.search(text, pair.end())
        if end is None:
            return _fault(text, start, f"does not close the value of {key}", name)
        if key in arguments:
            return _fault(text, start, f"writes the argument {key} twice", name)
        value = text[pair.end() : end.start()]
        arguments[key] = typed_value(value, property_schema(parameters, key), parameters)
        position = end.end()
    closing = _CALL_END.match(text, position)
    if closing is None:
        return _fault(text, start, f"does not go on to {CLOSE}", name)
    try:
        check_value(arguments)
        name.encode()
    except ValueError as error:
        return _fault(text, start, f"cannot be kept ({error})")
    return Reading(calls=(read_call(name, arguments),), end=closing.end())


def _fault(text: str, start: int, why: str, name: str = UNKNOWN) -> Reading:
    close = text.find(CLOSE, start)
    if close < 0:
        why = "is cut off"
    end = len(text) if close < 0 else close + len(CLOSE)
    call = broken_call(f"the tool call {why}; {_EXPECTED}", name)
    return Reading(calls=(call,), end=end, shown=text[start:end])
