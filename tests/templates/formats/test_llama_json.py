from typing import Any

import pytest

from agentrl.templates.formats.llama_json import LlamaJsonFormat

parse = LlamaJsonFormat().parse
CALL = '{"name": "search", "parameters": {"limit": 1}}'


@pytest.mark.parametrize(
    "text",
    [
        CALL,
        f"<|python_tag|>{CALL}",
        f"<|python_tag|>\n{CALL};",
        CALL.replace("parameters", "arguments"),
        CALL.replace("{", '{"type": "function", ', 1),
        CALL.replace('{"limit": 1}', '"{\\"limit\\": 1}"'),
        '{ "parameters": {"limit": 1}, "name": "search" }',
    ],
)
def test_the_forms_that_a_call_comes_in(text: str) -> None:
    parsed = parse(text)
    (call,) = parsed.calls
    assert (call.name, call.arguments, call.error) == ("search", {"limit": 1}, None)
    assert parsed.content == ""


@pytest.mark.parametrize("between", ["; ", ";\n", "\n", "", "; <|python_tag|>"])
def test_several_calls(between: str) -> None:
    parsed = parse(CALL + between + CALL)
    assert [call.error for call in parsed.calls] == [None, None]
    assert parsed.content == ""


@pytest.mark.parametrize(
    "text",
    [
        'The answer is {"a": 1}; then {"b": {"name": "x"}}',
        r"\frac{1}{2} of {x : x > 0}",
        '{"name": "Ann", "age": 7}',
        'Call it with {"name", "parameters"}.',
    ],
)
def test_an_answer_in_json_is_no_call(text: str) -> None:
    parsed = parse(text)
    assert (parsed.calls, parsed.content) == ((), text)


def test_an_offered_tool_may_be_called_without_parameters(schemas: dict[str, Any]) -> None:
    (call,) = parse('{"name": "search"}', schemas=schemas).calls
    assert (call.name, call.arguments, call.error) == ("search", {}, None)


def test_a_quote_or_a_brace_in_the_text_does_not_hide_a_call() -> None:
    (call,) = parse(f'The set {{"a, b}} is "here": {CALL}').calls
    assert call.error is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"name": "search", "parameters": {"limit":', "cut off"),
        ('{"name": "search", "parameters": {"limit": NaN}}', "not valid JSON"),
        ("{'name': 'search', 'parameters': {}}", "not valid JSON"),
        ('{"name": "search", "parameters": [1]}', "`parameters` must be an object, got list"),
        ('{"name": 5, "parameters": {}}', "names no tool"),
        ('{"type": "function", "function": {"name": "search"}}', "names no tool"),
        ("<|python_tag|>search(limit=1)", "no JSON object behind <|python_tag|>"),
        ('<|python_tag|>{"limit": 1}', "names no tool"),
        ("<|python_tag|>", "no JSON object"),
    ],
)
def test_what_cannot_be_executed_is_a_call_with_an_error(text: str, why: str) -> None:
    parsed = parse(f"So: {text}")
    (call,) = parsed.calls
    assert call.error is not None
    assert why in call.error
    assert 'expected {"name": "...", "parameters": {...}}' in call.error
    assert parsed.content == f"So: {text}"


def test_a_broken_call_does_not_hide_the_next_nor_lend_it_its_insides() -> None:
    inner = f'{{"name": "search", "parameters": {{"a": oops, "b": {CALL}}}}}'
    assert [call.error is None for call in parse(inner).calls] == [False]
    assert [call.error is None for call in parse(f"{inner}; {CALL}").calls] == [False, True]
