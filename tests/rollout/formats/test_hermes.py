import pytest

from agentrl.rollout.formats.hermes import format_tool_call, parse_tool_calls

CALL = format_tool_call("add", {"a": 1})


def test_several_calls_and_the_text_around_them_are_told_apart() -> None:
    parsed = parse_tool_calls(f"first {CALL} then {format_tool_call('mul', {'b': [2]})} end")
    assert [(c.name, c.arguments, c.error) for c in parsed.calls] == [
        ("add", {"a": 1}, None),
        ("mul", {"b": [2]}, None),
    ]
    assert [c.id for c in parsed.calls] == ["call00000", "call00001"]
    assert parsed.content == "first  then  end"


def test_plain_text_has_no_calls() -> None:
    parsed = parse_tool_calls(" the answer is 4 ")
    assert parsed.calls == ()
    assert parsed.message() == {"role": "assistant", "content": "the answer is 4"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"text": 'a "quoted" \\ word'},
        {"text": "</tool_call> inside"},
        {"text": "naïve – 日本語 🎲"},
        {"nested": {"list": [1, {"deep": None}], "flag": True}},
        {"code": "x = {'a': 1}\nprint(x)"},
        {},
    ],
)
def test_a_formatted_call_parses_back(arguments: dict[str, object]) -> None:
    (call,) = parse_tool_calls(f"so {format_tool_call('t', arguments)}").calls
    assert (call.name, call.arguments, call.error) == ("t", arguments, None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('<tool_call>{"name": "t", "arguments": {}', "cut off"),
        ('<tool_call>{"name": "t", "arguments": {}}', "not closed"),
        ("<tool_call>", "cut off"),
        ("<tool_call>add(1)</tool_call>", "not valid JSON"),
        ('<tool_call>{"name": "t"} and more</tool_call>', "text after"),
        ('<tool_call>{"arguments": {}}</tool_call>', "names no tool"),
        ("<tool_call>[1]</tool_call>", "names no tool"),
        ('<tool_call>{"name": "t", "arguments": [1]}</tool_call>', "must be an object"),
        ('<tool_call>{"name": "t", "arguments": "{"}</tool_call>', "`arguments` is not valid"),
    ],
)
def test_what_cannot_be_executed_is_a_call_with_an_error(text: str, why: str) -> None:
    parsed = parse_tool_calls(text)
    (call,) = parsed.calls
    assert call.error is not None
    assert why in call.error
    assert "tool_calls" not in parsed.message()
    assert parsed.content == text


def test_a_broken_call_does_not_hide_the_next() -> None:
    calls = parse_tool_calls(f"<tool_call>oops</tool_call>{CALL}").calls
    assert [call.error is None for call in calls] == [False, True]


def test_arguments_may_be_a_json_string() -> None:
    text = '<tool_call>{"name": "t", "arguments": "{\\"a\\": 1}"}</tool_call>'
    assert parse_tool_calls(text).calls[0].arguments == {"a": 1}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (f"<think>maybe {CALL}</think>done", []),
        (f"<think>maybe</think>{CALL}", ["add"]),
        (f"<think>never closed {CALL}", []),
        (f"opened in the prompt {CALL}</think>{CALL}", ["add"]),
        (f"{CALL}<think>{CALL}</think>", ["add"]),
    ],
)
def test_calls_inside_thinking_are_ignored(text: str, names: list[str]) -> None:
    assert [call.name for call in parse_tool_calls(text).calls] == names


def test_any_number_of_broken_calls_inside_thinking_is_ignored() -> None:
    parsed = parse_tool_calls("<tool_call>" * 100 + f"</think>{CALL}")
    assert [(call.name, call.error) for call in parsed.calls] == [("add", None)]


@pytest.mark.parametrize("tag", ["</think>", "<think>", "<think>x</think>", "</tool_call>"])
def test_a_tag_inside_an_argument_is_text(tag: str) -> None:
    parsed = parse_tool_calls(format_tool_call("add", {"a": f"print('{tag}')"}))
    (call,) = parsed.calls
    assert call.error is None
    assert call.arguments == {"a": f"print('{tag}')"}


def test_a_call_that_was_never_opened_is_a_call_with_an_error() -> None:
    text = '{"name": "add", "arguments": {}}</tool_call>'
    parsed = parse_tool_calls(text)
    (call,) = parsed.calls
    assert "no <tool_call> before it" in str(call.error)
    assert parsed.content == text


def test_a_second_closing_tag_is_no_call() -> None:
    parsed = parse_tool_calls(f"{CALL}</tool_call>")
    assert [call.error for call in parsed.calls] == [None]
