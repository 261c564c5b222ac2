from typing import Any

import pytest
from tests_support import (
    ADD,
    SCHEMAS,
    Adder,
    call_message,
    calls,
    make_rollout,
    roll,
    said,
    sample,
    tool_message,
)

from agentrl.errors import ConfigError, TemplateError
from agentrl.rollout.prefix_test import verify_template
from agentrl.rollout.render import Renderer

TURNS = (
    "{%- for m in messages %}<|start|>{{ m.role }}\n{{ CONTENT }}"
    "{%- for c in m.tool_calls or [] %}<tool_call>"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "</tool_call>{% endfor %}<|end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
SHOWS_TOOLS = "{%- if tools %}<|start|>system\n{{ tools | tojson }}<|end|>\n{% endif %}"
STRIPS_THINKING = SHOWS_TOOLS + TURNS.replace(
    "CONTENT", "m.content.split('</think>')[-1] if not loop.last else m.content"
)
NO_TAIL = SHOWS_TOOLS + TURNS.replace("CONTENT", "m.content or ''").replace("<|end|>\n", "<|end|>")
THINKING_PROMPT = SHOWS_TOOLS + TURNS.replace("CONTENT", "m.content or ''").replace(
    "<|start|>assistant\n{% endif", "<|start|>assistant\n<think>\n{% endif"
)
GROUPS_RESULTS = (
    SHOWS_TOOLS + "{%- for m in messages %}"
    "{%- if m.role == 'tool' %}"
    "{%- if messages[loop.index0 - 1].role != 'tool' %}<|start|>user{% endif %}"
    "\n<r>{{ m.content }}</r>"
    "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|end|>\n{% endif %}"
    "{%- else %}<|start|>{{ m.role }}\n{{ m.content or '' }}"
    "{%- for c in m.tool_calls or [] %}<tool_call>"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "</tool_call>{% endfor %}<|end|>\n{% endif %}{% endfor %}"
    "{%- if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{%- if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    + SHOWS_TOOLS
    + TURNS.replace("CONTENT", "m.content or ''")
)
DEMONSTRATION = [
    {"role": "user", "content": "go"},
    call_message("c0", ADD, {"a": 2, "b": 3}),
    tool_message("c0", ADD, "5"),
    {"role": "assistant", "content": "It is 5."},
]


@pytest.mark.parametrize("template", [NO_TAIL, GROUPS_RESULTS], ids=["no tail", "grouped results"])
async def test_a_rollout_has_the_tokens_of_its_demonstration_with_any_template(
    tokenizer: Any, template: str
) -> None:
    renderer = Renderer(tokenizer, chat_template=template)
    assert renderer.native_tools
    script = said(renderer, calls({"a": 2, "b": 3}), "It is 5.")
    trajectory = await roll(make_rollout(renderer, script, Adder()))
    ids, mask = renderer.conversation(DEMONSTRATION, SCHEMAS)
    assert trajectory.token_ids == ids
    assert trajectory.response_mask == mask


async def test_a_template_without_tools_rolls_out_in_plain_words(tokenizer: Any) -> None:
    plain = TURNS.replace("CONTENT", "m.content").replace("m.tool_calls or []", "[]")
    renderer = Renderer(tokenizer, chat_template=plain)
    assert not renderer.native_tools
    script = said(renderer, calls({"a": 2, "b": 3}), "It is 5.")
    trajectory = await roll(make_rollout(renderer, script, Adder()))
    assert trajectory.tool_records[0].response == "5"
    assert trajectory.token_ids == renderer.conversation(DEMONSTRATION, SCHEMAS)[0]
    assert '"name": "add"' in renderer.decode_text(trajectory.prompt_ids)


async def test_parallel_results_are_one_delta_of_a_grouping_template(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=GROUPS_RESULTS)
    script = said(renderer, calls({"a": 1}, {"a": 2}), "done")
    trajectory = await roll(make_rollout(renderer, script, Adder()))
    text = renderer.decode_text(trajectory.turns[1].token_ids)
    assert text == "\n<|start|>user<r>1</r><r>2</r><|end|>\n<|start|>assistant\n"


def test_a_template_that_strips_earlier_thinking_is_refused_where_users_answer(
    tokenizer: Any,
) -> None:
    renderer = Renderer(tokenizer, chat_template=STRIPS_THINKING)
    verify_template(renderer, SCHEMAS, users=False)
    with pytest.raises(TemplateError, match=r"turn 6 \(user\).*<think>.*model\.chat_template"):
        verify_template(renderer, SCHEMAS)


def test_a_generation_prompt_that_history_lacks_is_refused(tokenizer: Any) -> None:
    with pytest.raises(TemplateError, match=r"generation prompt|breaks at turn"):
        verify_template(Renderer(tokenizer, chat_template=THINKING_PROMPT), SCHEMAS)


async def test_a_prompt_that_the_template_refuses_is_a_configuration_error(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=NO_SYSTEM)
    row = sample()
    row.prompt.insert(0, {"role": "system", "content": "be brief"})
    async with make_rollout(renderer, said(renderer, "x"), Adder()) as rollout:
        with pytest.raises(ConfigError, match="no system role"):
            await rollout.run_group(row, group_id="g", size=2, seed=0)
