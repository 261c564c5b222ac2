"""Qwen3-Coder's tool calls, whose arguments are written as bare text between tags.

    <tool_call>
    <function=NAME>
    <parameter=KEY>
    VALUE
    </parameter>
    </function>
    </tool_call>

A value ends at the first `</parameter>` behind which the call goes on, so it may hold any tag by
itself; one newline on either side belongs to the template. Values are typed by the tool's schema.
"""

import re
from typing import Any

from agentrl.contracts.call import UNKNOWN, ParsedTurn, Schemas, broken_call, read_call
from agentrl.rollout.formats.split import Reading, split_turn
from agentrl.rollout.formats.typed_text import property_schema, typed_value
from agentrl.rollout.formats.values import check_value

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_OPENER = rf"{OPEN}|<function=[^<>\n]+>"
_EXPECTED = (
    f"expected {OPEN}<function=NAME><parameter=KEY>VALUE</parameter></function>{CLOSE}, with one "
    f"<parameter=KEY> for each argument"
)
_FUNCTION = re.compile(r"\s*<function=([^<>\n]+)>")
_FUNCTION_END = re.compile(rf"\s*</function>\s*{CLOSE}")
_PARAMETER = re.compile(r"\s*<parameter=([^<>\n]+)>")
_PARAMETER_END = re.compile(rf"</parameter>(?=\s*(?:<parameter=[^<>\n]+>|</function>\s*{CLOSE}))")
_STRAY_END = re.compile(rf"</function>(?:\s*{CLOSE})?")


class QwenXmlFormat:
    """Reads Qwen3-Coder's calls."""

    name = "qwen3_xml"
    markup: tuple[str, ...] = (OPEN, CLOSE)
    stops: tuple[str, ...] = ()

    def parse(self, text: str, *, turn: int = 0, schemas: Schemas | None = None) -> ParsedTurn:
        """Split a policy turn into content and calls; `schemas` give the arguments their types."""

        def read(text: str, match: re.Match[str], since: int) -> Reading:
            return _read(text, match, schemas or {})

        return split_turn(text, _OPENER, read, turn=turn)


def _read(text: str, match: re.Match[str], schemas: Schemas) -> Reading:
    start = match.start()
    if match[0] != OPEN:
        end = _STRAY_END.search(text, start)
        call = broken_call(f"the tool call has no {OPEN} before it; {_EXPECTED}")
        stop = end.end() if end else len(text)
        return Reading(calls=(call,), end=stop, shown=text[start:stop])
    function = _FUNCTION.match(text, match.end())
    if function is None:
        return _fault(text, start, "does not begin with <function=NAME>")
    name, position = function[1].strip(), function.end()
    arguments: dict[str, Any] = {}
    parameters = schemas.get(name)
    while parameter := _PARAMETER.match(text, position):
        key = parameter[1].strip()
        end = _PARAMETER_END.search(text, parameter.end())
        if end is None:
            return _fault(text, start, f"does not close <parameter={key}>", name)
        if key in arguments:
            return _fault(text, start, f"writes <parameter={key}> twice", name)
        value = text[parameter.end() : end.start()].removeprefix("\n").removesuffix("\n")
        arguments[key] = typed_value(value, property_schema(parameters, key), parameters)
        position = end.end()
    closing = _FUNCTION_END.match(text, position)
    if closing is None:
        return _fault(text, start, f"does not go on to </function>{CLOSE}", name)
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
