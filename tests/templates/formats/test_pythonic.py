from typing import Any

import pytest

from agentrl.templates.formats.pythonic import PythonicFormat

parse = PythonicFormat().parse


def test_names_that_python_refuses_are_read() -> None:
    (call,) = parse('[my-tool.v2(from="a", x-y=1, class=None)]').calls
    assert call.error is None
    assert (call.name, call.arguments) == ("my-tool.v2", {"from": "a", "x-y": 1, "class": None})


@pytest.mark.parametrize(
    "text",
    [
        "[f(a=1,), g(b=2),]",
        "[ f ( a = 1 ) , g ( b = 2 ) ]",
        "[\n  f(\n    a=1\n  ),\n  g(b=2)\n]",
        "<|python_start|>[f(a=1), g(b=2)]<|python_end|>",
    ],
)
def test_space_and_trailing_commas_do_not_matter(text: str) -> None:
    parsed = parse(text)
    assert [(c.name, c.arguments, c.error) for c in parsed.calls] == [
        ("f", {"a": 1}, None),
        ("g", {"b": 2}, None),
    ]
    assert parsed.content == ""


@pytest.mark.parametrize(
    "text",
    [
        "The values are [1, 2] and [f(1), f(2)].",
        "See [the page](https://example.org) and [f(x)](y).",
        "x = table[f(a=1)]",
        "f(a=1)",
        "[a, f(a=1)]",
        "[f(a==1)]",
    ],
)
def test_a_list_in_an_answer_is_no_call(text: str) -> None:
    parsed = parse(text)
    assert (parsed.calls, parsed.content) == ((), text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[search(limit=", "cut off"),
        ("[search(limit=1", "cut off"),
        ("<|python_start|>", "cut off"),
        ('[search(query="a\nb")]', "cut off or misquoted: a string is not closed"),
        ("[search(filters={)]", "a ')' closes nothing"),
        ("[search(limit=1]", "is not closed by )"),
        ("[search(limit=x)]", "'x' is not a literal"),
        ("[search(limit=other(1))]", "'other(1)' is not a literal"),
        ("[search(limit=1+1)]", "'1+1' is not a literal"),
        ("[search(limit={1, 2})]", "JSON has no set"),
        ("[search(filters={1: 2})]", "the key 1 is not a string"),
        ("[search(limit=1e999)]", "not a literal (Out of range float"),
        ('[search(query="\\ud83d")]', "lone surrogate"),
        ("[search(limit=1, limit=2)]", "limit is written twice"),
        ("[search(5)]", "the argument '5' has no name"),
        ("<|python_start|>search(limit=1)<|python_end|>", "no list behind <|python_start|>"),
        ("<|python_start|>[1]<|python_end|>", "does not begin with name("),
    ],
)
def test_what_cannot_be_executed_is_a_call_with_an_error(
    text: str, why: str, schemas: dict[str, Any]
) -> None:
    parsed = parse(f"So: {text}", schemas=schemas)
    (call,) = parsed.calls
    assert call.error is not None
    assert why in call.error
    assert "expected [name(key=value, ...), ...]" in call.error
    assert call.error.startswith("the tool call")
    assert text.strip("[]") in parsed.content


def test_a_broken_call_does_not_hide_the_others_of_its_list() -> None:
    parsed = parse("[f(a=1), g(b=x), h(c=3)] done")
    assert [(c.name, c.error is None) for c in parsed.calls] == [
        ("f", True),
        ("g", False),
        ("h", True),
    ]
    assert parsed.content == "g(b=x) done"


def test_reading_goes_on_behind_a_broken_list_that_is_marked() -> None:
    start, end = "<|python_start|>", "<|python_end|>"
    calls = parse(f"{start}[f(a={end}{start}[f(a=1)]{end}").calls
    assert [call.error is None for call in calls] == [False, True]
