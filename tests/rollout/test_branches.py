"""Episodes over chat templates that rewrite history, or show one call a turn."""

from typing import Any

import numpy as np
import pytest
from tests_support import Adder, Teacher, calls, make_rollout, roll, said

from agentrl.algorithms.samples import samples_of
from agentrl.contracts.trajectory import Termination, Trajectory, TurnKind
from agentrl.engines.scripted import ScriptedEngine
from agentrl.errors import RenderError
from agentrl.templates.render import Renderer

TURNS = (
    "{%- if tools %}<|start|>system\n{{ tools | tojson }}<|end|>\n{% endif %}"
    "{%- set last = namespace(user=0) %}"
    "{%- for m in messages %}{% if m.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}"
    "{% endfor %}"
    "{%- for m in messages %}<|start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.index0 < last.user %}"
    "{{ (m.content or '').split('</think>')[-1] }}{% else %}{{ m.content or '' }}{% endif %}"
    "{%- for c in m.tool_calls or [] %}<tool_call>"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "</tool_call>{% endfor %}<|end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
ONE_CALL = (
    "{%- for m in messages %}{% if m.tool_calls and m.tool_calls | length > 1 %}"
    "{{ raise_exception('one call a turn') }}{% endif %}{% endfor %}" + TURNS
)
THOUGHT = "<think>hm</think>wrong"


@pytest.fixture
def forgetful(tokenizer: Any) -> Renderer:
    """The renderer of a template that drops the thinking of what stands before the last user."""
    return Renderer(tokenizer, chat_template=TURNS)


async def rolled(renderer: Renderer) -> tuple[Trajectory, ScriptedEngine]:
    engine = ScriptedEngine(said(renderer, calls({"a": 1}), THOUGHT, THOUGHT, "right"))
    rollout = make_rollout(renderer, [], Adder(), teacher=Teacher(), engine=engine)
    return await roll(rollout), engine


async def test_a_template_that_drops_thinking_branches_where_the_user_answers(
    forgetful: Renderer,
) -> None:
    trajectory, engine = await rolled(forgetful)
    assert trajectory.termination is Termination.INTERACTION_END
    kinds = [turn.kind for turn in trajectory.turns]
    assert kinds.count(TurnKind.USER) == 3
    assert len(trajectory.leaves) == 3
    texts = [forgetful.decode(request.prompt_ids) for request in engine.requests]
    assert [text.count("<think>") for text in texts] == [0, 0, 0, 0]


async def test_the_policy_is_always_shown_what_the_template_renders(forgetful: Renderer) -> None:
    trajectory, engine = await rolled(forgetful)
    policy = [i for i, turn in enumerate(trajectory.turns) if turn.kind is TurnKind.POLICY]
    for index, request in zip(policy, engine.requests, strict=True):
        before = [m for turn in trajectory.turns[:index] for m in turn.messages]
        expected = forgetful.prompt(before, list(trajectory.tool_schemas))
        assert request.prompt_ids == expected.tolist()


async def test_every_sampled_token_is_trained_once_in_its_own_context(forgetful: Renderer) -> None:
    trajectory, engine = await rolled(forgetful)
    samples = samples_of(trajectory)
    assert len(samples) == 3
    sampled = sum(len(turn.token_ids) for turn in trajectory.policy_turns)
    assert sum(int(s.loss_mask.sum()) for s in samples) == sampled
    contexts = [
        [*r.prompt_ids, *t.token_ids]
        for r, t in zip(engine.requests, trajectory.policy_turns, strict=True)
    ]
    for one in samples:
        end = int(np.flatnonzero(one.loss_mask)[-1]) + 1
        assert one.token_ids[:end].tolist() in contexts


async def test_a_template_of_one_call_a_turn_gets_one_and_says_so_of_the_rest(
    tokenizer: Any,
) -> None:
    renderer = Renderer(tokenizer, chat_template=ONE_CALL)
    both = [m for m in said(Renderer(tokenizer, chat_template=TURNS), calls({"a": 1}, {"a": 2}))]
    tool = Adder()
    trajectory = await roll(make_rollout(renderer, [*both, *said(renderer, "done")], tool))
    assert trajectory.termination is Termination.ANSWERED
    assert tool.diary.count("execute") == 1
    (message,) = trajectory.turns[2].messages
    assert message["content"] == "1\nError: at most 1 calls a turn are executed"


async def test_a_template_that_fails_in_an_episode_ends_that_episode(tokenizer: Any) -> None:
    fails = TURNS.replace(
        "{%- for m in messages %}<|start|>",
        "{%- for m in messages %}{% if 'boom' in (m.content or '') %}"
        "{{ raise_exception('no boom') }}{% endif %}<|start|>",
    )
    renderer = Renderer(tokenizer, chat_template=fails)
    tool = Adder(behave=lambda parameters: "boom")
    rollout = make_rollout(renderer, said(renderer, calls({"a": 1}), "x"), tool)
    trajectory = await roll(rollout)
    assert trajectory.termination is Termination.INFRA_ERROR
    assert trajectory.failure is not None
    assert trajectory.failure.kind == RenderError.__name__
    assert "no boom" in trajectory.failure.message
    assert [r.response for r in trajectory.tool_records] == ["boom"]


async def test_a_broken_call_does_not_cost_the_good_one_behind_it_its_place(
    tokenizer: Any,
) -> None:
    renderer = Renderer(tokenizer, chat_template=ONE_CALL)
    (good,) = said(Renderer(tokenizer, chat_template=TURNS), calls({"a": 1}))
    broken = tokenizer.encode("<tool_call>?</tool_call>", add_special_tokens=False)
    tool = Adder()
    script = [[*broken, *good], *said(renderer, "done")]
    trajectory = await roll(make_rollout(renderer, script, tool))
    assert tool.diary.count("execute") == 1
    (message,) = trajectory.turns[2].messages
    (call,) = trajectory.turns[1].messages[0]["tool_calls"]
    assert message["tool_call_id"] == call["id"]
    assert str(message["content"]).startswith("1\nError: ")
