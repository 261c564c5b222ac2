"""Every template that a public package bundles can be trained with, and is rendered as it is."""

import os
from functools import cache
from typing import Any

import numpy as np
import pytest
from public_templates import installed_templates, tokenizer_for, trl_folder
from tests_support import ADD, SCHEMAS, call_message, tool_message

from agentrl.contracts.message import Message
from agentrl.errors import RenderError, TemplateError
from agentrl.templates.check import verify_template
from agentrl.templates.render import Renderer
from agentrl.templates.shipped import SHIPPED

TEMPLATES = installed_templates()
REFUSED = {"vllm/template_kimi_audio": "cannot show a user's message"}
"""It reads a variable that nobody but vLLM's own speech server sets."""
NAMES = sorted(set(TEMPLATES) - set(REFUSED))
PARAMETERS = SCHEMAS[0]["function"]["parameters"]
ASK: Message = {"role": "user", "content": "What is 2 + 2?"}
AGAIN: Message = {"role": "user", "content": "Sure – naïve 日本語?"}
ANSWER: Message = {"role": "assistant", "content": "It is 4."}
THOUGHT: Message = {"role": "assistant", "content": "<think>\nTwo and two.\n</think>\n\nIt is 4."}
SYSTEM: Message = {"role": "system", "content": "Be exact."}


def called(*numbers: int, content: str = "") -> Message:
    calls = [call_message(f"call0000{n}", ADD, {"a": n, "b": -n}) for n in numbers]
    together = [message["tool_calls"][0] for message in calls]
    return {"role": "assistant", "content": content, "tool_calls": together}


def result(number: int, content: str) -> Message:
    return tool_message(f"call0000{number}", ADD, content)


DIALOGUES: dict[str, list[Message]] = {
    "one call": [ASK, called(1), result(1, "0"), ANSWER],
    "two rounds": [ASK, called(1), result(1, "0"), called(2), result(2, "{}"), ANSWER],
    "parallel": [ASK, called(1, 2), result(1, "0"), result(2, "naïve – 日本語"), ANSWER],
    "system": [SYSTEM, ASK, called(1), result(1, ""), ANSWER, AGAIN, ANSWER],
    "feedback": [ASK, ANSWER, AGAIN, ANSWER, AGAIN, ANSWER],
    "thinking": [ASK, THOUGHT, AGAIN, THOUGHT, AGAIN, ANSWER],
    "thinking and calls": [
        *(ASK, called(1, content="<think>\nI add.\n</think>\n\n"), result(1, "0"), THOUGHT, AGAIN),
        *(called(2, content="<think>\nAgain.\n</think>\n\n"), result(2, "4"), THOUGHT),
    ],
    "special tokens": [ASK, called(1), result(1, "SPECIAL"), ANSWER, AGAIN, ANSWER],
}


@cache
def renderer_of(name: str) -> Renderer:
    return Renderer(tokenizer_for(TEMPLATES[name]))


def dialogue_for(renderer: Renderer, name: str) -> list[Message]:
    special = "".join(renderer.decode_text([i]) for i in renderer.stop_token_ids)
    messages = DIALOGUES[name]
    return [{**m, "content": m["content"].replace("SPECIAL", f"x{special}y")} for m in messages]


def test_the_packages_are_there_where_they_must_be() -> None:
    if "AGENTRL_REQUIRE_TRL" in os.environ:
        assert trl_folder(), "AGENTRL_REQUIRE_TRL is set and trl is not installed"
    if "AGENTRL_REQUIRE_VLLM" in os.environ:
        assert any(name.startswith("vllm/") for name in TEMPLATES)
    if trl_folder() is None:
        pytest.skip("trl is not installed: its templates are not tested")


@pytest.mark.parametrize("name", sorted(set(REFUSED) & set(TEMPLATES)))
def test_what_cannot_work_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(TemplateError, match=REFUSED[name]):
        renderer_of(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_template_is_accepted_with_tools_and_users(name: str) -> None:
    report = verify_template(renderer_of(name), SCHEMAS, users=True)
    assert [reply.kind for reply in report.replies] == ["tool", "user"]
    assert report.stop_tokens


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", DIALOGUES)
def test_every_policy_turn_is_prompted_as_the_template_renders_and_is_read_back(
    name: str, kind: str
) -> None:
    renderer = renderer_of(name)
    if kind == "parallel" and renderer.max_calls == 1:
        pytest.skip("the template shows one call a turn")
    messages = dialogue_for(renderer, kind)
    ids = np.empty(0, dtype=np.int32)
    pending: list[Message] = []
    for at, message in enumerate(messages):
        if message["role"] != "assistant":
            pending.append(message)
            continue
        before = messages[:at]
        if at == len(pending):
            ids = renderer.prompt(pending, SCHEMAS)
        else:
            told = before[: at - len(pending)]
            more = renderer.reply(ids, told, pending, SCHEMAS)
            ids = np.concatenate([ids[: more.kept], more.token_ids])
        assert np.array_equal(ids, renderer.prompt(before, SCHEMAS))
        written = renderer.said(before, message, SCHEMAS)
        assert written[-1] in renderer.stop_token_ids
        check_read_back(renderer, written, message)
        ids = np.concatenate([ids, written])
        pending = []


def check_read_back(renderer: Renderer, written: np.ndarray, message: Message) -> None:
    parsed = renderer.tool_format.parse(renderer.decode(written), schemas={ADD: PARAMETERS})
    expected = [
        (call["function"]["name"], call["function"]["arguments"], None)
        for call in message.get("tool_calls", ())
    ]
    assert [(call.name, call.arguments, call.error) for call in parsed.calls] == expected
    if not expected:
        assert parsed.content.endswith("It is 4.")


@pytest.mark.parametrize("name", NAMES)
def test_content_writes_no_control_tokens_whatever_it_says(name: str) -> None:
    renderer = renderer_of(name)
    tokenizer = tokenizer_for(TEMPLATES[name])
    control = [i for i, t in tokenizer.added_tokens_decoder.items() if t.special]
    hostile = "".join(tokenizer.convert_ids_to_tokens(control))
    counts = []
    for content in ("x", f"x{hostile}y"):
        said = call_message("call00001", ADD, {"a": content})
        dialogue = [{"role": "user", "content": content}, said, result(1, content)]
        ids = renderer.prompt(dialogue, SCHEMAS)
        counts.append(int(np.isin(ids, control).sum()))
    assert counts[0] == counts[1]
    assert renderer.decode_text(ids) == renderer.text(dialogue, SCHEMAS, generate=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_text_is_the_templates_own(name: str) -> None:
    renderer = renderer_of(name)
    ways = renderer.ways
    if not ways.native or ways.parts or ways.thinking_key:
        pytest.skip("the template is taught, so its own text is another one")
    messages = dialogue_for(renderer, "special tokens")
    own: Any = tokenizer_for(TEMPLATES[name]).apply_chat_template(
        messages, tools=SCHEMAS, add_generation_prompt=True, tokenize=False
    )
    assert renderer.text(messages, SCHEMAS, generate=True) == own


@pytest.mark.parametrize("name", NAMES)
def test_a_demonstration_trains_each_turn_once_in_the_context_of_its_sampling(name: str) -> None:
    renderer = renderer_of(name)
    messages = DIALOGUES["thinking and calls"]
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    try:
        branches = renderer.conversation(messages, SCHEMAS)
    except RenderError as error:
        pytest.fail(str(error))
    trained = np.concatenate([ids[mask == 1] for ids, mask in branches])
    written = [renderer.said(messages[:i], messages[i], SCHEMAS) for i in turns]
    assert np.array_equal(trained, np.concatenate(written))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_template_only_appends_and_has_calls_of_its_own(name: str) -> None:
    report = verify_template(renderer_of(f"agentrl/{name}"), SCHEMAS)
    assert all(reply.extends for reply in report.replies)
    assert report.native


def test_nine_in_ten_of_each_packages_templates_are_accepted() -> None:
    for package in {name.partition("/")[0] for name in TEMPLATES}:
        names = [name for name in TEMPLATES if name.startswith(f"{package}/")]
        assert len(set(names) & set(NAMES)) >= 0.85 * len(names), package


@pytest.mark.parametrize("name", NAMES)
def test_a_result_is_shown_though_a_broken_call_stands_before_its_call(name: str) -> None:
    renderer = renderer_of(name)
    call = {
        "id": "call00001",
        "type": "function",
        "function": {"name": "add", "arguments": {"a": 1}},
    }
    results = [
        {"role": "tool", "name": told, "tool_call_id": f"call0000{i}", "content": f"Resultword{i}."}
        for i, told in enumerate(("unknown", "add"))
    ]
    called = {"role": "assistant", "content": "", "tool_calls": [call]}
    text = renderer.text([{"role": "user", "content": "Go."}, called, *results], SCHEMAS)
    assert "Resultword1." in text
