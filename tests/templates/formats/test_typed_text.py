from typing import Any

import pytest

from agentrl.templates.formats.typed_text import property_schema, typed_value

PARAMETERS = {
    "$defs": {"Size": {"enum": [1, 2]}, "Loop": {"anyOf": [{"$ref": "#/$defs/Loop"}]}},
    "properties": {"size": {"$ref": "#/$defs/Size"}},
    "additionalProperties": {"type": "number"},
}


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("5", {"type": "string"}, "5"),
        (" null ", {"type": "string"}, " null "),
        ("5", {"type": "integer"}, 5),
        (" 5 ", {"type": "number"}, 5),
        ("1e3", {"type": "number"}, 1000.0),
        ("True", {"type": "boolean"}, True),
        ("false", {"type": "boolean"}, False),
        ("None", {"type": ["string", "null"]}, None),
        ("null", {"anyOf": [{"type": "string"}, {"type": "null"}]}, None),
        ("nothing", {"anyOf": [{"type": "string"}, {"type": "null"}]}, "nothing"),
        ('{"a": [1]}', {"type": "object"}, {"a": [1]}),
        ("{'a': (1, True)}", {"type": "object"}, {"a": [1, True]}),
        ("[1, 2]", {"type": "array"}, [1, 2]),
        ("2", {"$ref": "#/$defs/Size"}, 2),
        ("2", {"enum": ["1", "2"]}, "2"),
        ("2", {"const": 2}, 2),
        ("2", {"oneOf": [{"type": "integer"}, {"type": "array"}]}, 2),
        ("2", {"$ref": "#/$defs/Loop"}, 2),
        ("2", {"$ref": "#/nowhere"}, 2),
        ("2", {}, 2),
        ("two", None, "two"),
    ],
)
def test_text_is_read_as_the_type_that_the_schema_asks_for(
    text: str, schema: Any, value: Any
) -> None:
    found = typed_value(text, schema, PARAMETERS)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("five", "integer"),
        ("NaN", "number"),
        ("9" * 5000, "integer"),
        ("yes", "boolean"),
        ("[1", "array"),
        ("[1] and more", "array"),
        ('{"a": NaN}', "object"),
        ("{1: 2}", "object"),
        ("[" * 80 + "]" * 80, "array"),
    ],
)
def test_text_of_another_type_stays_text_for_the_validation_to_name(text: str, kind: str) -> None:
    assert typed_value(text, {"type": kind}, None) == text


def test_an_arguments_schema_is_its_own_or_that_of_additional_properties() -> None:
    assert property_schema(PARAMETERS, "size") == {"$ref": "#/$defs/Size"}
    assert property_schema(PARAMETERS, "other") == {"type": "number"}
    assert property_schema(None, "size") is None
