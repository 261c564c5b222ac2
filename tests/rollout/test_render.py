from typing import Any

import pytest
from tests_support import ADD, SCHEMAS, call_message, tool_message

from agentrl.errors import ConfigError, TemplateError
from agentrl.plugins.reference import load_plugin
from agentrl.rollout.prefix_test import verify_template
from agentrl.rollout.render import Renderer

PLAIN = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
FORGETFUL = (
    "{% for m in messages %}<|start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and not loop.last %}(gone){% else %}{{ m.content }}{% endif %}"
    "<|end|>\n{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
UNEXPECTED = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}"
    "{% endif %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("template", [None, PLAIN])
def test_an_appending_template_passes(tokenizer: Any, template: str | None) -> None:
    renderer = Renderer(tokenizer, chat_template=template)
    verify_template(renderer, SCHEMAS)
    assert renderer.stop_token_ids == (0,)


def test_a_template_that_rewrites_a_turn_is_refused_with_the_turn(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=FORGETFUL)
    with pytest.raises(TemplateError, match=r"breaks at turn 2 \(tool\).*\(gone\)"):
        verify_template(renderer, SCHEMAS)


def test_a_template_that_refuses_tools_is_refused_with_the_turn(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=UNEXPECTED)
    with pytest.raises(TemplateError, match=r"turn 2 \(tool\).*no tools here"):
        verify_template(renderer, SCHEMAS)


def test_no_template_is_an_error_with_the_remedy() -> None:
    bare = load_plugin(f"{__file__.rsplit('/', 2)[0]}/tiny_policy.py:build_tokenizer")()
    bare.chat_template = None
    with pytest.raises(ConfigError, match=r"no chat template.*model\.chat_template"):
        Renderer(bare)


def test_a_template_without_tools_describes_them_in_words(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=PLAIN)
    assert not renderer.native_tools
    text = renderer.text([{"role": "system", "content": "Be brief."}], SCHEMAS)
    assert text.startswith("<|start|>system\nBe brief.\n\n")
    assert '"name": "add"' in text
    said = renderer.text([call_message("c0", ADD, {"a": 1})], [])
    assert '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>' in said


def test_the_mask_of_a_conversation_covers_what_the_assistant_wrote(renderer: Renderer) -> None:
    messages = [
        {"role": "user", "content": "2+2?"},
        call_message("c0", ADD, {"a": 2}),
        tool_message("c0", ADD, "4"),
        {"role": "assistant", "content": "It is 4."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Yes."},
    ]
    ids, mask = renderer.conversation(messages, SCHEMAS)
    text = renderer.decode_text([i for i, bit in zip(ids, mask, strict=True) if bit])
    assert text == (
        '<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call><|end|>'
        "It is 4.<|end|>Yes.<|end|>"
    )
    assert renderer.decode_text(ids) == renderer.text(messages, SCHEMAS).removesuffix("\n")


def test_prompt_assistant_and_delta_join_to_the_templates_text(renderer: Renderer) -> None:
    user = [{"role": "user", "content": "go"}]
    said = {"role": "assistant", "content": "ok"}
    answer = [{"role": "user", "content": "and?"}]
    ids = [
        *renderer.prompt(user, []),
        *renderer.assistant(said, []),
        *renderer.delta(answer, []),
    ]
    assert renderer.decode_text(ids) == renderer.text([*user, said, *answer], [], generate=True)


def test_decode_leaves_out_the_stop_token_only(renderer: Renderer) -> None:
    written = renderer.assistant(call_message("c0", ADD, {}), [])
    assert renderer.decode(written).endswith("</tool_call>")
    assert renderer.decode(written[:-1]) == renderer.decode(written)
