from typing import Any

import pytest

from agentrl.contracts.tool import ToolSchema
from agentrl.plugins.schema import read_schema, violations

PARAMETERS = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "minimum": 0},
        "mode": {"enum": ["fast", "slow"]},
        "point": {"$ref": "#/$defs/Point"},
    },
    "required": ["a"],
    "additionalProperties": False,
    "$defs": {
        "Point": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
    },
}


@pytest.fixture(scope="module")
def schema() -> ToolSchema:
    return read_schema({"name": "t", "parameters": PARAMETERS}, where="here")


@pytest.mark.parametrize(
    "arguments",
    [{"a": 0}, {"a": 2, "mode": "fast"}, {"a": 1, "point": {"x": 1.5, "more": None}}],
)
def test_valid_arguments_have_no_violations(schema: ToolSchema, arguments: dict[str, Any]) -> None:
    assert violations(schema, arguments) == []


def test_every_violation_is_listed_with_its_place(schema: ToolSchema) -> None:
    arguments = {"a": -1, "mode": "warp", "point": {"x": "one"}, "extra": 1}
    assert violations(schema, arguments) == [
        "arguments: Additional properties are not allowed ('extra' was unexpected)",
        "a: -1 is less than the minimum of 0",
        "mode: 'warp' is not one of ['fast', 'slow']",
        "point.x: 'one' is not of type 'number'",
    ]


def test_missing_arguments_are_named(schema: ToolSchema) -> None:
    assert violations(schema, {"point": {}}) == [
        "arguments: 'a' is a required property",
        "point: 'x' is a required property",
    ]


def test_parameters_are_kept_whole_for_the_template(schema: ToolSchema) -> None:
    assert schema.for_template() == {
        "type": "function",
        "function": {"name": "t", "parameters": PARAMETERS},
    }
