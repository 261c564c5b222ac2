from typing import Any

import pytest

from agentrl.templates.formats.qwen_xml import QwenXmlFormat

parse = QwenXmlFormat().parse


def written(body: str) -> str:
    return f"<tool_call>\n<function=search>{body}\n</function>\n</tool_call>"


def argument(value: str, key: str = "query") -> str:
    return written(f"\n<parameter={key}>\n{value}\n</parameter>")


@pytest.mark.parametrize(
    "value",
    [
        "</parameter>",
        "</tool_call>",
        "<parameter=query>\n",
        "a </parameter> b",
        "</function>\n</tool_call>",
        "<function=f>",
    ],
)
def test_a_value_may_hold_any_tag_by_itself(value: str, schemas: dict[str, Any]) -> None:
    (call,) = parse(argument(value), schemas=schemas).calls
    assert (call.arguments, call.error) == ({"query": value}, None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<tool_call>\n<function=search>\n<parameter=query>\nx", "cut off"),
        ("<tool_call>", "cut off"),
        ('<tool_call>{"name": "search"}</tool_call>', "does not begin with <function=NAME>"),
        (written("\n<parameter=query>\nx"), "does not close <parameter=query>"),
        (written("\nx"), "does not go on to </function></tool_call>"),
        (written("<parameter=a>1</parameter>" * 2), "writes <parameter=a> twice"),
        ("<function=search>\n</function>\n</tool_call>", "no <tool_call> before it"),
        (argument("\ud83d"), "cannot be kept (a string holds a lone"),
    ],
)
def test_what_cannot_be_executed_is_a_call_with_an_error(
    text: str, why: str, schemas: dict[str, Any]
) -> None:
    parsed = parse(f"So: {text}", schemas=schemas)
    (call,) = parsed.calls
    assert call.error is not None
    assert why in call.error
    assert "expected <tool_call><function=NAME>" in call.error
    assert parsed.content == f"So: {text}"


def test_a_broken_call_does_not_hide_the_next(schemas: dict[str, Any]) -> None:
    calls = parse("<tool_call>oops</tool_call>" + argument("x"), schemas=schemas).calls
    assert [call.error is None for call in calls] == [False, True]


def test_without_a_schema_json_is_read_and_all_else_is_text() -> None:
    body = "".join(
        f"<parameter={key}>{value}</parameter>"
        for key, value in {"a": "5", "b": "[1, 'x']", "c": "five", "d": "true"}.items()
    )
    (call,) = parse(written(body)).calls
    assert call.arguments == {"a": 5, "b": [1, "x"], "c": "five", "d": True}
