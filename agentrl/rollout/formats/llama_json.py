"""Llama 3's tool calls: `{"name": ..., "parameters": {...}}`, several separated by `;`.

Nothing but an optional special token `<|python_tag|>` tells a call from an answer in JSON. So
behind the tag anything is an attempt; elsewhere an object is one if it has a name and parameters
(`arguments` is taken too), names an offered tool or says that it is a function; broken JSON is one
if it begins with a name.
"""

import re
from typing import Any

from agentrl.contracts.call import ParsedTurn, Schemas, broken_call
from agentrl.rollout.formats.hermes import call_of_body
from agentrl.rollout.formats.split import Reading, split_turn
from agentrl.rollout.formats.values import ValueFault, read_json

TAG = "<|python_tag|>"
_EXPECTED = 'expected {"name": "...", "parameters": {...}}, several separated by ;'
_OPENER = re.escape(TAG) + r"|\{"
_ATTEMPT = re.compile(r"\{\s*['\"]name['\"]\s*:")
_SEPARATOR = re.compile(rf"\s*;(?=\s*(?:\{{|{re.escape(TAG)}|\Z))")
_NEXT_CALL = re.compile(rf";\s*(?=\{{)|\n[ \t]*(?=\{{)|(?={re.escape(TAG)})")
_SPACE = re.compile(r"\s*")


class LlamaJsonFormat:
    """Reads Llama 3's calls; the arguments' types are JSON's own."""

    name = "llama3_json"
    markup: tuple[str, ...] = (TAG,)
    stops: tuple[str, ...] = ("<|eom_id|>",)

    def parse(self, text: str, *, turn: int = 0, schemas: Schemas | None = None) -> ParsedTurn:
        """Split a policy turn into content and calls; `schemas` name the offered tools."""

        def read(text: str, match: re.Match[str], since: int) -> Reading:
            return _read(text, match, schemas or {})

        return split_turn(text, _OPENER, read, turn=turn)


def _read(text: str, match: re.Match[str], schemas: Schemas) -> Reading:
    tagged = match[0] == TAG
    space = _SPACE.match(text, match.end())
    start = space.end() if tagged and space else match.start()
    if not text.startswith("{", start):
        return _fault(text, match.start(), start, f"has no JSON object behind {TAG}")
    try:
        body, end = read_json(text, start)
    except ValueFault as error:
        if tagged or _ATTEMPT.match(text, start):
            why = f"is cut off or not valid JSON ({error})"
            return _fault(text, match.start(), error.position, why)
        return Reading(end=match.end(), shown=match[0])
    if not tagged and not _is_call(body, schemas):
        return Reading(end=end, shown=text[start:end])
    call = call_of_body(body, _EXPECTED)
    if call.error is not None:
        return Reading(calls=(call,), end=end, shown=text[match.start() : end])
    separator = _SEPARATOR.match(text, end)
    return Reading(calls=(call,), end=separator.end() if separator else end)


def _is_call(body: Any, schemas: Schemas) -> bool:
    if not isinstance(body, dict):
        return False
    name = body.get("name")
    offered = isinstance(name, str) and name in schemas
    with_arguments = "name" in body and ("parameters" in body or "arguments" in body)
    return offered or with_arguments or body.get("type") == "function"


def _fault(text: str, start: int, position: int, why: str) -> Reading:
    """Return a broken call; reading goes on where the next call can be told from its rest."""
    following = _NEXT_CALL.search(text, position)
    end = following.end() if following else len(text)
    call = broken_call(f"the tool call {why}; {_EXPECTED}")
    return Reading(calls=(call,), end=end, shown=text[start:end])
