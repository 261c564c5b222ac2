import json
from typing import Any

import pytest

from agentrl.rollout.formats.harmony import HarmonyFormat

CALL = " to=functions.search<|channel|>commentary json<|message|>"
ANALYSIS = "<|channel|>analysis<|message|>I look.<|end|><|start|>assistant"


@pytest.mark.parametrize("arguments", [{}, {"query": 'naïve "x" <|end', "limit": 3}])
@pytest.mark.parametrize("lead", ["", ANALYSIS])
def test_a_message_to_a_function_is_a_call(lead: str, arguments: dict[str, Any]) -> None:
    text = f"{lead}{CALL}{json.dumps(arguments)}"
    parsed = HarmonyFormat().parse(text, turn=2)
    ((name, read, error, call_id),) = [(c.name, c.arguments, c.error, c.id) for c in parsed.calls]
    assert (name, read, error, call_id) == ("search", arguments, None, "call02000")
    assert parsed.content == ("<think>\nI look.\n</think>" if lead else "")


def test_the_recipient_may_stand_behind_the_channel() -> None:
    text = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}"
    assert [call.name for call in HarmonyFormat().parse(text).calls] == ["f"]


def test_the_final_channel_is_the_answer_and_the_analysis_its_thinking() -> None:
    text = f"{ANALYSIS}<|channel|>final<|message|>It is 4."
    parsed = HarmonyFormat().parse(text)
    assert (parsed.content, parsed.calls) == ("<think>\nI look.\n</think>\n\nIt is 4.", ())


@pytest.mark.parametrize(
    ("body", "why"),
    [('{"a": 1', "not valid JSON"), ("[1]", "not one object"), ('{} {"b": 1}', "not one object")],
)
def test_a_broken_call_says_why_and_stays_in_the_content(body: str, why: str) -> None:
    parsed = HarmonyFormat().parse(CALL + body)
    (call,) = parsed.calls
    assert why in str(call.error)
    assert body in parsed.content


def test_a_header_that_is_cut_off_is_a_broken_call() -> None:
    (call,) = HarmonyFormat().parse(" to=functions.search<|channel|>comm").calls
    assert "cut off" in str(call.error)
