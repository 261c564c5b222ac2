from typing import Any

import numpy as np
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
    tool_message,
)

from agentrl.rollout.render import Renderer
from agentrl.rollout.template_check import TemplateReport, verify_template

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
SINGLE = SHOWS_TOOLS + TURNS.replace("CONTENT", "m.content or ''").replace(
    "{%- for m in messages %}",
    "{%- for m in messages %}{% if m.tool_calls and m.tool_calls | length > 1 %}"
    "{{ raise_exception('one at a time') }}{% endif %}",
)
NINE = SHOWS_TOOLS + TURNS.replace("CONTENT", "m.content or ''").replace(
    "{%- for c in m.tool_calls or [] %}",
    "{%- for c in m.tool_calls or [] %}{% if c.id | length != 9 or not c.id.isalnum() %}"
    "{{ raise_exception('ids have nine characters') }}{% endif %}",
)
ALTERNATING = (
    "{%- for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
UNREADABLE = SHOWS_TOOLS + TURNS.replace("CONTENT", "m.content or ''").replace(
    '<tool_call>"', '<call>"'
).replace("<tool_call>", "<call>").replace("</tool_call>", "</call>")
NEEDS_CALLS = SHOWS_TOOLS + TURNS.replace("CONTENT", "m.content or ''").replace(
    "{%- for m in messages %}",
    "{%- for m in messages %}{% if m.role == 'tool' and not messages[loop.index0 - 1].tool_calls "
    "and messages[loop.index0 - 1].role != 'tool' %}{{ raise_exception('no call') }}{% endif %}",
)
NEXT_ROLE_ENDS = SHOWS_TOOLS + TURNS.replace("CONTENT", "m.content or ''").replace(
    "<|end|>\n{% endfor %}", "{% endfor %}"
)
FRAMED = TURNS.replace(
    "CONTENT", "'<say>' ~ m.content ~ '</say>' if m.role == 'assistant' else m.content"
)
DEMONSTRATION = [
    {"role": "user", "content": "go"},
    call_message("c0", ADD, {"a": 2, "b": 3}),
    tool_message("c0", ADD, "5"),
    {"role": "assistant", "content": "It is 5."},
]
THOUGHT = {"role": "assistant", "content": "<think>\nTwo.\n</think>\n\nIt is 5."}
ASK = [{"role": "user", "content": "go"}]


def report_of(tokenizer: Any, template: str) -> TemplateReport:
    return verify_template(Renderer(tokenizer, chat_template=template), SCHEMAS)


def extends(report: TemplateReport) -> dict[str, bool]:
    return {reply.kind: reply.extends for reply in report.replies}


@pytest.mark.parametrize("template", [NO_TAIL, GROUPS_RESULTS], ids=["no tail", "grouped results"])
async def test_a_rollout_has_the_tokens_of_its_demonstration_with_any_template(
    tokenizer: Any, template: str
) -> None:
    renderer = Renderer(tokenizer, chat_template=template)
    assert renderer.ways.native
    script = said(renderer, calls({"a": 2, "b": 3}), "It is 5.")
    trajectory = await roll(make_rollout(renderer, script, Adder()))
    ((ids, mask),) = renderer.conversation(DEMONSTRATION, SCHEMAS)
    assert trajectory.token_ids == ids.tolist()
    assert trajectory.response_mask == mask.tolist()


async def test_a_template_without_tools_rolls_out_in_plain_words(tokenizer: Any) -> None:
    plain = TURNS.replace("CONTENT", "m.content").replace("m.tool_calls or []", "[]")
    renderer = Renderer(tokenizer, chat_template=plain)
    assert not renderer.ways.native
    script = said(renderer, calls({"a": 2, "b": 3}), "It is 5.")
    trajectory = await roll(make_rollout(renderer, script, Adder()))
    assert trajectory.tool_records[0].response == "5"
    ((ids, _),) = renderer.conversation(DEMONSTRATION, SCHEMAS)
    assert trajectory.token_ids == ids.tolist()
    assert '"name": "add"' in renderer.decode_text(trajectory.prompt_ids)


async def test_parallel_results_are_one_reply_of_a_grouping_template(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=GROUPS_RESULTS)
    script = said(renderer, calls({"a": 1}, {"a": 2}), "done")
    trajectory = await roll(make_rollout(renderer, script, Adder()))
    text = renderer.decode_text(trajectory.turns[1].token_ids)
    assert text == "\n<|start|>user<r>1</r><r>2</r><|end|>\n<|start|>assistant\n"


def test_thinking_that_is_dropped_when_a_user_answers_branches_there_only(tokenizer: Any) -> None:
    template = SHOWS_TOOLS + TURNS.replace(
        "CONTENT",
        "m.content if messages[-1].role != 'user' else m.content.split('</think>')[-1].strip()",
    )
    assert extends(report_of(tokenizer, template)) == {"tool": True, "user": False}


def test_a_template_that_drops_thinking_of_all_but_the_last_turn_branches(tokenizer: Any) -> None:
    assert extends(report_of(tokenizer, STRIPS_THINKING)) == {"tool": False, "user": False}


def test_a_turn_is_written_behind_thinking_that_the_prompt_opened(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=THINKING_PROMPT)
    assert extends(verify_template(renderer, SCHEMAS)) == {"tool": False, "user": False}
    assert renderer.decode_text(renderer.assistant(THOUGHT, [])) == (
        "Two.\n</think>\n\nIt is 5.<|end|>"
    )
    unthinking = renderer.assistant({"role": "assistant", "content": "5"}, [])
    assert renderer.decode_text(unthinking) == "\n</think>\n\n5<|end|>"


def test_thinking_that_the_prompt_opened_is_whole_in_history(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=THINKING_PROMPT)
    parsed = renderer.tool_format.parse(renderer.decode(renderer.assistant(THOUGHT, [])))
    assert renderer.text([*ASK, parsed.message(), *ASK], []) == renderer.text(
        [*ASK, THOUGHT, *ASK], []
    )


def test_a_system_prompt_opens_the_first_user_message_where_there_is_no_system_role(
    tokenizer: Any,
) -> None:
    renderer = Renderer(tokenizer, chat_template=NO_SYSTEM)
    text = renderer.text([{"role": "system", "content": "be brief"}, *ASK], [])
    assert text == "<|start|>user\nbe brief\n\ngo<|end|>\n"


def test_neighbours_are_merged_where_roles_must_alternate(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=ALTERNATING)
    assert renderer.ways.alternate
    assert renderer.text([*ASK, {"role": "user", "content": "on"}], []) == (
        "<|start|>user\ngo\n\non<|end|>\n"
    )
    verify_template(renderer, SCHEMAS)


def test_a_template_of_one_call_a_turn_is_taken_and_shown_no_second_one(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=SINGLE)
    assert renderer.max_calls == 1
    assert "it shows one call a turn" in verify_template(renderer, SCHEMAS).lines()
    turn = calls({"a": 1}, {"a": 2})
    results = [tool_message(f"c{i}", ADD, f"result {i}") for i in (0, 1)]
    context = np.concatenate([renderer.prompt(ASK, SCHEMAS), renderer.assistant(turn, SCHEMAS)])
    more = renderer.reply(context, [*ASK, turn], results, SCHEMAS)
    assert all(f"result {i}" in renderer.decode_text(more.token_ids) for i in (0, 1))


def test_calls_have_ids_of_nine_characters_whatever_the_data_says(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=NINE)
    assert renderer.ways.native
    assert renderer.conversation(DEMONSTRATION, SCHEMAS)
    parsed = renderer.tool_format.parse(
        renderer.decode(renderer.assistant(calls({"a": 1}, {"a": 2}), SCHEMAS)), turn=3
    )
    ids = [call.id for call in parsed.calls]
    assert len(set(ids)) == 2
    assert all(len(i) == 9 and i.isalnum() for i in ids)


def test_calls_that_no_format_reads_are_taught_in_words(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=UNREADABLE)
    assert not renderer.ways.native
    parsed = renderer.tool_format.parse(
        renderer.decode(renderer.assistant(calls({"a": 1}), SCHEMAS))
    )
    assert [(call.name, call.arguments) for call in parsed.calls] == [(ADD, {"a": 1})]


def test_the_result_of_a_broken_call_is_told_by_the_user_where_no_call_is_shown(
    tokenizer: Any,
) -> None:
    renderer = Renderer(tokenizer, chat_template=NEEDS_CALLS)
    assert not renderer.ways.orphans
    broken = {"role": "assistant", "content": "<tool_call>{"}
    text = renderer.text([*ASK, broken, tool_message("call00000", ADD, "bad")], SCHEMAS)
    assert "<|start|>user\n<tool_response>\nbad\n</tool_response>" in text


def test_the_next_roles_token_ends_a_turn_that_nothing_closes(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=NEXT_ROLE_ENDS)
    written = renderer.assistant({"role": "assistant", "content": "5"}, [])
    assert renderer.decode_text(written) == "5<|start|>"
    assert renderer.decode(written) == "5"
    assert extends(verify_template(renderer, SCHEMAS)) == {"tool": True, "user": True}


def test_another_stop_token_gives_way_to_the_next_roles(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=NEXT_ROLE_ENDS)
    said_5 = {"role": "assistant", "content": "5"}
    context = np.concatenate([renderer.prompt(ASK, []), renderer.assistant(said_5, [])])
    context[-1] = renderer.stop_token_ids[-1] if renderer.stop_token_ids[-1] != 1 else 0
    more = renderer.reply(context, [*ASK, said_5], ASK, [])
    assert more.kept == len(context) - 1
    whole = np.concatenate([context[: more.kept], more.token_ids])
    assert np.array_equal(whole, renderer.prompt([*ASK, said_5, *ASK], []))


def test_a_turn_that_ended_by_another_stop_token_is_not_closed_again(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, generation_stop_ids=[1])
    said_5 = {"role": "assistant", "content": "5"}
    usual = np.concatenate([renderer.prompt(ASK, []), renderer.assistant(said_5, [])])
    other = np.array([*usual[:-1], 1], dtype=np.int32)
    more = [renderer.reply(c, [*ASK, said_5], ASK, []).token_ids for c in (usual, other)]
    assert np.array_equal(*more)


def test_what_frames_every_answer_is_no_part_of_what_was_said(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, chat_template=FRAMED)
    written = renderer.assistant({"role": "assistant", "content": "5"}, [])
    assert renderer.decode_text(written) == "<say>5</say><|end|>"
    assert renderer.decode(written) == "5"
