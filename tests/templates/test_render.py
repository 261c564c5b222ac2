import json
from typing import Any

import numpy as np
import pytest
from tests_support import ADD, SCHEMAS, call_message, tool_message

from agentrl.errors import ConfigError, RenderError, TemplateError
from agentrl.plugins.reference import load_plugin
from agentrl.templates.check import verify_template
from agentrl.templates.render import Renderer

PLAIN = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
FORGETFUL = (
    "{% for m in messages %}<|start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and not loop.last %}(gone){% else %}{{ m.content }}{% endif %}"
    "<|end|>\n{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
NO_RESULTS = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}"
    "{% endif %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
DATED = "{{ strftime_now('%H:%M:%S.%f') }}" + PLAIN
USER = [{"role": "user", "content": "go"}]
TURNS = [
    {"role": "user", "content": "2+2?"},
    call_message("call00000", ADD, {"a": 2}),
    tool_message("call00000", ADD, "4"),
    {"role": "assistant", "content": "It is 4."},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "Yes."},
]


def learned(renderer: Renderer, ids: np.ndarray, mask: np.ndarray) -> str:
    return renderer.decode_text(ids[mask == 1])


@pytest.mark.parametrize("template", [None, PLAIN])
def test_replies_extend_where_a_template_only_appends(tokenizer: Any, template: str | None) -> None:
    renderer = Renderer(tokenizer, chat_template=template)
    report = verify_template(renderer, SCHEMAS)
    assert [(reply.kind, reply.extends) for reply in report.replies] == [
        ("tool", True),
        ("user", True),
    ]
    assert renderer.stop_token_ids == (0,)


def test_replies_branch_where_a_template_rewrites_a_turn_and_the_report_says_why(
    tokenizer: Any,
) -> None:
    report = verify_template(Renderer(tokenizer, chat_template=FORGETFUL), SCHEMAS)
    assert not any(reply.extends for reply in report.replies)
    assert all("(gone)" in reply.reason for reply in report.replies)
    assert any("tool reply branches" in line for line in report.lines())


def test_a_branch_keeps_what_the_template_keeps(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=FORGETFUL)
    said = {"role": "assistant", "content": "hm"}
    context = np.concatenate([renderer.prompt(USER, []), renderer.assistant(said, [])])
    more = renderer.reply(context, [*USER, said], USER, [])
    assert renderer.decode_text(context[: more.kept]) == "<|start|>user\ngo<|end|>\n" + (
        "<|start|>assistant\n"
    )
    whole = np.concatenate([context[: more.kept], more.token_ids])
    assert np.array_equal(whole, renderer.prompt([*USER, said, *USER], []))


def test_results_are_told_by_the_user_where_a_template_takes_no_tool_role(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=NO_RESULTS)
    assert not renderer.ways.tool_role
    text = renderer.text([*USER, call_message("c0", ADD, {}), tool_message("c0", ADD, "4")], [])
    assert text.endswith("<|start|>user\n<tool_response>\n4\n</tool_response><|end|>\n")
    verify_template(renderer, SCHEMAS)


def test_no_template_is_an_error_with_the_remedy() -> None:
    bare = load_plugin(f"{__file__.rsplit('/', 2)[0]}/tiny_policy.py:build_tokenizer")()
    bare.chat_template = None
    with pytest.raises(ConfigError, match=r"no chat template.*model\.chat_template"):
        Renderer(bare)


def test_a_template_that_shows_no_user_is_refused(tokenizer: Any) -> None:
    with pytest.raises(TemplateError, match=r"cannot show a user.*'functions' is undefined"):
        Renderer(tokenizer, chat_template="{{ functions.x }}")


def test_a_template_without_tools_describes_them_in_words(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=PLAIN)
    assert not renderer.ways.native
    text = renderer.text([{"role": "system", "content": "Be brief."}], SCHEMAS)
    assert text.startswith("<|start|>system\nBe brief.\n\n")
    assert '"name": "add"' in text
    said = renderer.text([call_message("c0", ADD, {"a": 1})], [])
    assert '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>' in said


def test_a_demonstration_of_an_appending_template_is_one_sequence(renderer: Renderer) -> None:
    ((ids, mask),) = renderer.conversation(TURNS, SCHEMAS)
    assert learned(renderer, ids, mask) == (
        '<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call><|end|>'
        "It is 4.<|end|>Yes.<|end|>"
    )
    assert renderer.decode_text(ids) == renderer.text(TURNS, SCHEMAS).removesuffix("\n")


def test_a_demonstration_of_a_rewriting_template_trains_each_turn_once_in_its_context(
    tokenizer: Any,
) -> None:
    renderer = Renderer(tokenizer, chat_template=FORGETFUL)
    branches = renderer.conversation(TURNS, SCHEMAS)
    called = '<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call><|end|>'
    assert [learned(renderer, *b) for b in branches] == [called, "It is 4.<|end|>", "Yes.<|end|>"]
    for (ids, mask), end in zip(branches, (1, 3, 5), strict=True):
        start = int(np.flatnonzero(mask)[0])
        assert np.array_equal(ids[:start], renderer.prompt(TURNS[:end], SCHEMAS))


def test_a_demonstration_without_an_assistant_is_an_error(renderer: Renderer) -> None:
    with pytest.raises(RenderError, match="no assistant message"):
        renderer.conversation(USER, [])


def test_prompt_assistant_and_reply_join_to_the_templates_text(renderer: Renderer) -> None:
    said = {"role": "assistant", "content": "ok"}
    answer = [{"role": "user", "content": "and?"}]
    context = np.concatenate([renderer.prompt(USER, []), renderer.assistant(said, [])])
    more = renderer.reply(context, [*USER, said], answer, [])
    assert more.kept == len(context)
    assert more.token_ids.dtype == np.int32
    text = renderer.decode_text(np.concatenate([context, more.token_ids]))
    assert text == renderer.text([*USER, said, *answer], [], generate=True)


def test_decode_leaves_out_the_stop_token_only(renderer: Renderer) -> None:
    written = renderer.assistant(call_message("c0", ADD, {}), [])
    assert renderer.decode(written).endswith("</tool_call>")
    assert renderer.decode(written[:-1]) == renderer.decode(written)


def test_the_generation_configs_end_tokens_end_a_turn(tokenizer: Any) -> None:
    assert Renderer(tokenizer, generation_stop_ids=[7, 0]).stop_token_ids == (0, 7)


def test_a_prompt_is_rendered_once_for_its_group(renderer: Renderer) -> None:
    messages = [{"role": "user", "content": "once"}]
    assert renderer.prompt(messages, SCHEMAS) is renderer.prompt(
        json.loads(json.dumps(messages)), SCHEMAS
    )


def test_a_reply_does_not_depend_on_the_replies_before_it(tokenizer: Any) -> None:
    def answered(renderer: Renderer, call_id: str, tools: list[dict[str, Any]]) -> list[int]:
        before = [USER[0], call_message(call_id, ADD, {"a": 2})]
        context = renderer.prompt(before[:1], tools)
        context = np.concatenate([context, renderer.assistant(before[1], tools)])
        reply = renderer.reply(context, before, [tool_message(call_id, ADD, "4")], tools)
        said = renderer.reply(context, before, USER, tools)
        return [*reply.token_ids, *said.token_ids]

    asked = [("call00000", SCHEMAS), ("call01000", SCHEMAS), ("call00000", []), ("<think>", [])]
    used = Renderer(tokenizer)
    for case in [*asked, *asked]:
        assert answered(used, *case) == answered(Renderer(tokenizer), *case)


def test_a_template_sees_one_date_for_a_whole_run(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=DATED)
    assert renderer.text(USER, []) == renderer.text(USER, [])


def test_parts_of_text_are_read_as_one_text(renderer: Renderer) -> None:
    parts = [{"type": "text", "text": "g"}, {"type": "text", "text": "o"}]
    prompt = renderer.prompt([{"role": "user", "content": parts}], [])
    assert np.array_equal(prompt, renderer.prompt(USER, []))


def test_the_digest_tells_templates_apart(tokenizer: Any, renderer: Renderer) -> None:
    assert renderer.template_digest.startswith("sha256:")
    other = Renderer(tokenizer, chat_template=PLAIN)
    assert other.template_digest != renderer.template_digest


def test_a_format_that_does_not_read_the_templates_calls_is_refused(tokenizer: Any) -> None:
    with pytest.raises(TemplateError, match=r"tool_format 'qwen3_xml' does not fit.*use auto"):
        Renderer(tokenizer, tool_format="qwen3_xml")


def test_the_template_for_tools_is_used_where_tools_are_offered(tokenizer: Any) -> None:
    template = tokenizer.chat_template
    named = load_plugin(f"{__file__.rsplit('/', 2)[0]}/tiny_policy.py:build_tokenizer")()
    named.chat_template = {"default": PLAIN, "tool_use": template}
    renderer = Renderer(named)
    assert renderer.ways.native
    assert renderer.text(USER, SCHEMAS) == Renderer(tokenizer).text(USER, SCHEMAS)


def test_an_error_of_the_template_is_the_episodes(tokenizer: Any) -> None:
    template = PLAIN.replace("{{ m.content }}", "{{ m.content if m.content != 'bad' else 1 / 0 }}")
    renderer = Renderer(tokenizer, chat_template=template)
    with pytest.raises(RenderError, match=r"refuses a dialogue of user.*ZeroDivisionError.*change"):
        renderer.prompt([{"role": "user", "content": "bad"}], [])
