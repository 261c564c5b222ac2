"""Gives a value that was written as bare text the type that its JSON Schema asks for.

XML formats write `5`, `true` and `five` alike; only the tool's schema says which is a string.
What cannot be read as the schema's type stays text, so that the validation of the call's
arguments names the fault in the schema's own words.
"""

import re
from collections.abc import Mapping
from typing import Any

from agentrl.templates.formats.literals import read_literal
from agentrl.templates.formats.values import ValueFault, read_json

_ALL_BUT_STRING = ("null", "boolean", "integer", "number", "object", "array")
_NULLS, _BOOLEANS = ("null", "None"), {"true": True, "false": False}
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")
_NAMES = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


def property_schema(parameters: Mapping[str, Any] | None, key: str) -> Any:
    """Return the schema of one argument, or None where the tool's schema does not tell."""
    if parameters is None:
        return None
    properties = parameters.get("properties")
    if isinstance(properties, Mapping) and key in properties:
        return properties[key]
    return parameters.get("additionalProperties")


def typed_value(text: str, schema: Any, parameters: Mapping[str, Any] | None) -> Any:
    """Read `text` as the type that `schema` asks for; `parameters` is where `$ref`s lead.

    A string is taken word for word. Where a string is one type of several, the others come
    first: `null` is null for a `string | null`. Without a type, JSON is read and all else is a
    string.
    """
    types = _types(schema, parameters or {}, depth=0)
    if types == {"string"}:
        return text
    stripped = text.strip()
    for kind in _ALL_BUT_STRING:
        if kind in types or not types:
            found, value = _read_as(kind, stripped)
            if found:
                return value
    return text


def _read_as(kind: str, text: str) -> tuple[bool, Any]:
    if kind == "null":
        return text in _NULLS, None
    if kind == "boolean":
        return text.lower() in _BOOLEANS, _BOOLEANS.get(text.lower())
    if kind in ("integer", "number"):
        return _read_number(text)
    brackets, python_type = ("{}", dict) if kind == "object" else ("[]", list)
    if not (text.startswith(brackets[0]) and text.endswith(brackets[1])):
        return False, None
    try:
        value, end = read_json(text)
        whole = end == len(text)
    except ValueFault:
        try:
            # Templates and policies alike write objects the way Python prints them.
            value, whole = read_literal(text), True
        except ValueFault:
            return False, None
    return whole and isinstance(value, python_type), value


def _read_number(text: str) -> tuple[bool, Any]:
    if not _NUMBER.fullmatch(text):
        return False, None
    try:
        value, end = read_json(text)
    except ValueFault:
        return False, None
    return end == len(text), value


def _types(schema: Any, parameters: Mapping[str, Any], depth: int) -> set[str]:
    """Return the types that a schema admits; empty where it does not say."""
    if not isinstance(schema, Mapping) or depth > 8:
        return set()
    if isinstance(schema.get("$ref"), str):
        return _types(_resolve(schema["$ref"], parameters), parameters, depth + 1)
    named = schema.get("type")
    if isinstance(named, str):
        return {named}
    if isinstance(named, list):
        return {kind for kind in named if isinstance(kind, str)}
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        return {_NAMES.get(type(value), "string") for value in values}
    branches = [b for key in ("anyOf", "oneOf", "allOf") for b in schema.get(key) or ()]
    found = [_types(branch, parameters, depth + 1) for branch in branches]
    return set().union(*found) if all(found) else set()


def _resolve(reference: str, parameters: Mapping[str, Any]) -> Any:
    node: Any = parameters
    for part in reference.removeprefix("#").strip("/").split("/"):
        node = node.get(part.replace("~1", "/").replace("~0", "~")) if part else node
        if not isinstance(node, Mapping):
            return None
    return node
