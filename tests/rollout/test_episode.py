import asyncio
from typing import Any

import pytest
from tests_support import (
    ADD,
    SCHEMAS,
    Adder,
    FixedTask,
    Teacher,
    call_message,
    calls,
    make_rollout,
    roll,
    said,
    sample,
    tool_message,
)

from agentrl.contracts.tool import ToolOutcome
from agentrl.contracts.trajectory import Termination, TurnKind
from agentrl.engines.scripted import ScriptedEngine
from agentrl.errors import InfraError, ToolError
from agentrl.templates.render import Renderer

AWAITS = 90
"""More than an episode of two answers and a call has."""


def fail(error: Exception) -> Any:
    def behave(parameters: dict[str, Any]) -> str:
        raise error

    return behave


async def test_a_dialogue_has_the_tokens_of_its_demonstration(renderer: Renderer) -> None:
    script = said(renderer, calls({"a": 2, "b": 3}), "It is 5.")
    trajectory = await roll(make_rollout(renderer, script, Adder()))
    demonstration = [
        {"role": "user", "content": "go"},
        call_message("c0", ADD, {"a": 2, "b": 3}),
        tool_message("c0", ADD, "5"),
        {"role": "assistant", "content": "It is 5."},
    ]
    ((ids, mask),) = renderer.conversation(demonstration, SCHEMAS)
    assert trajectory.token_ids.tolist() == list(ids)
    assert trajectory.branch(len(trajectory.turns) - 1).mask.tolist() == list(mask)
    assert trajectory.termination is Termination.ANSWERED
    assert trajectory.answer == "It is 5."


async def test_the_engine_is_shown_exactly_the_tokens_so_far(renderer: Renderer) -> None:
    script = said(renderer, calls({"a": 1}), "done")
    engine = ScriptedEngine(script)
    trajectory = await roll(make_rollout(renderer, script, Adder(), engine=engine))
    first, second = engine.requests
    tokens = trajectory.token_ids.tolist()
    assert second.prompt_ids == tokens[: len(second.prompt_ids)]
    assert second.prompt_ids[: len(first.prompt_ids)] == first.prompt_ids
    assert first.session == second.session == trajectory.id
    assert first.sampling.seed != second.sampling.seed


async def test_every_reward_is_in_the_ledger_with_its_weight(renderer: Renderer) -> None:
    script = said(renderer, calls({"a": 1}), "wrong", "right")
    rollout = make_rollout(
        renderer,
        script,
        Adder(reward=0.5),
        teacher=Teacher(),
        weights={"tool_step": 0.0, "interaction": 0.1},
    )
    trajectory = await roll(rollout)
    entries = [(e.source, e.value, e.turn, e.weight) for e in trajectory.rewards]
    assert entries == [
        ("tool_step/add", 0.25, 2, 0.0),
        ("interaction_turn", 0.0, 3, 1.0),
        ("interaction_turn", 1.0, 5, 1.0),
        ("tool/add", 0.5, None, 1.0),
        ("interaction", 2.0, None, 0.1),
        ("task", 1.0, None, 1.0),
    ]
    assert trajectory.reward == pytest.approx(1.0 + 0.5 + 0.2 + 1.0)
    assert trajectory.termination is Termination.INTERACTION_END
    assert [t.kind for t in trajectory.turns].count(TurnKind.USER) == 2


async def test_turns_run_out(renderer: Renderer) -> None:
    script = said(renderer, calls({"a": 1}), calls({"a": 2}), "never said")
    tool = Adder()
    rollout = make_rollout(renderer, script, tool, config={"max_assistant_turns": 2})
    trajectory = await roll(rollout)
    assert trajectory.termination is Termination.MAX_TURNS
    assert tool.diary.count("execute") == 2


async def test_user_turns_run_out(renderer: Renderer) -> None:
    script = said(renderer, "no", "no", "no")
    rollout = make_rollout(renderer, script, teacher=Teacher(), config={"max_user_turns": 1})
    trajectory = await roll(rollout)
    assert trajectory.termination is Termination.MAX_TURNS
    assert len(trajectory.policy_turns) == 2


@pytest.mark.parametrize("budget", range(1, 140, 7))
async def test_a_response_never_exceeds_its_budget(renderer: Renderer, budget: int) -> None:
    script = said(renderer, calls({"a": 1}), "done")
    rollout = make_rollout(renderer, script, Adder(), config={"max_response_tokens": budget})
    trajectory = await roll(rollout)
    assert trajectory.response_length <= budget
    cut = trajectory.termination is Termination.MAX_TOKENS
    assert cut is (trajectory.termination is not Termination.ANSWERED)


async def test_a_turn_cut_in_its_middle_ends_the_episode_and_calls_nothing(
    renderer: Renderer,
) -> None:
    tool = Adder()
    script = said(renderer, calls({"a": 1}))
    trajectory = await roll(make_rollout(renderer, script, tool, config={"max_turn_tokens": 10}))
    assert trajectory.termination is Termination.MAX_TOKENS
    assert "execute" not in tool.diary


async def test_the_context_limit_is_told_from_the_response_budget(renderer: Renderer) -> None:
    script = said(renderer, "a long answer that does not fit")
    prompt = len(renderer.prompt(sample().prompt, []))
    rollout = make_rollout(renderer, script, model_max_tokens=prompt + 5)
    trajectory = await roll(rollout)
    assert trajectory.termination is Termination.MAX_CONTEXT
    assert len(trajectory.token_ids) <= prompt + 5


async def test_a_prompt_beyond_the_context_ends_before_it_begins(renderer: Renderer) -> None:
    trajectory = await roll(make_rollout(renderer, [], model_max_tokens=3))
    assert trajectory.termination is Termination.MAX_CONTEXT
    assert len(trajectory.turns) == 1


async def test_the_models_mistakes_are_observations(renderer: Renderer) -> None:
    broken = {"role": "assistant", "content": '<tool_call>{"name": "add"'}
    wrong = calls({"a": "one", "b": "two"})
    script = said(renderer, broken, wrong, calls({"a": 1}, name="nope"), calls({"a": 7}), "bye")
    tool = Adder(behave=lambda p: fail(ToolError("seven is unlucky"))(p))
    trajectory = await roll(make_rollout(renderer, script, tool))
    responses = [r.response for r in trajectory.tool_records]
    assert "cut off" in responses[0]
    assert "a: 'one' is not of type 'integer'; b: 'two' is not of type 'integer'" in responses[1]
    assert "no tool named 'nope'; the tools are add" in responses[2]
    assert responses[3] == "Error: seven is unlucky"
    assert {r.outcome for r in trajectory.tool_records} == {ToolOutcome.MODEL_ERROR}
    assert not trajectory.dropped


async def test_an_episode_that_ends_on_a_broken_call_is_a_model_error(renderer: Renderer) -> None:
    script = said(renderer, {"role": "assistant", "content": "<tool_call>?</tool_call>"})
    config = {"max_assistant_turns": 1}
    trajectory = await roll(make_rollout(renderer, script, Adder(), config=config))
    assert trajectory.termination is Termination.MODEL_ERROR


async def test_infrastructure_errors_are_retried_then_dropped(renderer: Renderer) -> None:
    tool = Adder(behave=fail(InfraError("backend down")))
    script = said(renderer, calls({"a": 1}), "x")
    trajectory = await roll(make_rollout(renderer, script, tool, config={"tool_retries": 1}))
    assert tool.diary.count("execute") == 2
    assert trajectory.termination is Termination.INFRA_ERROR
    assert trajectory.dropped
    assert trajectory.error is not None
    assert "backend down" in trajectory.error
    assert trajectory.tool_records[0].attempts == 2


async def test_a_retry_that_works_is_ok(renderer: Renderer) -> None:
    failures = [InfraError("once")]

    def behave(parameters: dict[str, Any]) -> str:
        if failures:
            raise failures.pop()
        return "fine"

    script = said(renderer, calls({"a": 1}), "x")
    trajectory = await roll(make_rollout(renderer, script, Adder(behave=behave)))
    (record,) = trajectory.tool_records
    assert (record.outcome, record.attempts, record.response) == (ToolOutcome.OK, 2, "fine")


async def test_a_plugins_bug_is_not_retried_and_drops(renderer: Renderer) -> None:
    tool = Adder(behave=fail(KeyError("oops")))
    trajectory = await roll(make_rollout(renderer, said(renderer, calls({"a": 1})), tool))
    assert tool.diary.count("execute") == 1
    assert trajectory.dropped
    assert "KeyError" in str(trajectory.error)


async def test_a_slow_call_times_out_and_the_dialogue_goes_on(renderer: Renderer) -> None:
    tool = Adder(behave=lambda p: asyncio.sleep(60))
    script = said(renderer, calls({"a": 1}), "gave up")
    trajectory = await roll(make_rollout(renderer, script, tool, config={"tool_timeout_s": 0.01}))
    assert trajectory.tool_records[0].outcome is ToolOutcome.TIMEOUT
    assert trajectory.termination is Termination.ANSWERED


async def test_a_slow_episode_times_out_with_what_it_had(renderer: Renderer) -> None:
    tool = Adder(behave=lambda p: asyncio.sleep(60))
    script = said(renderer, calls({"a": 1}), "x")
    rollout = make_rollout(renderer, script, tool, config={"episode_timeout_s": 0.05})
    trajectory = await roll(rollout)
    assert trajectory.termination is Termination.TIMEOUT
    assert len(trajectory.policy_turns) == 1
    assert tool.live == set()


@pytest.mark.parametrize(
    ("action", "dropped", "trained", "penalty"),
    [("keep", False, True, 0), ("drop", True, True, 0), ("mask", False, False, 0),
     ("penalise", False, True, -0.5)],
)  # fmt: skip
async def test_the_failure_policy_decides(
    renderer: Renderer, action: str, dropped: bool, trained: bool, penalty: float
) -> None:
    script = said(renderer, calls({"a": 1}), "x")
    tool = Adder(behave=lambda p: asyncio.sleep(60))
    config = {"tool_timeout_s": 0.01, "failures": {"timeout": action}}
    trajectory = await roll(make_rollout(renderer, script, tool, config=config))
    assert trajectory.dropped is dropped
    assert any(turn.mask.any() for turn in trajectory.turns) is trained
    assert trajectory.rewards.of("penalty/timeout") == penalty


async def test_parallel_calls_run_concurrently_and_come_back_in_order(renderer: Renderer) -> None:
    both = asyncio.Barrier(2)

    async def meet(parameters: dict[str, Any]) -> str:
        await both.wait()
        return f"got {parameters['a']}"

    script = said(renderer, calls({"a": 1}, {"a": 2}), "done")
    trajectory = await roll(make_rollout(renderer, script, Adder(behave=meet)))
    assert [r.response for r in trajectory.tool_records] == ["got 1", "got 2"]
    assert len([t for t in trajectory.turns if t.kind is TurnKind.TOOL]) == 1


async def test_calls_beyond_the_limit_are_refused(renderer: Renderer) -> None:
    tool = Adder()
    script = said(renderer, calls({"a": 1}, {"a": 2}, {"a": 3}), "done")
    trajectory = await roll(make_rollout(renderer, script, tool, config={"max_parallel_calls": 2}))
    assert tool.diary.count("execute") == 2
    assert "at most 2 calls" in trajectory.tool_records[2].response


@pytest.mark.parametrize(
    ("keep", "start", "end"), [("left", "abc", "cut]"), ("right", "[", "xyz"), ("middle", "[", "]")]
)
async def test_a_long_response_keeps_the_part_that_is_named(
    renderer: Renderer, keep: str, start: str, end: str
) -> None:
    text = "abc" + "-" * 50 + "MIDDLE" + "-" * 50 + "xyz"
    script = said(renderer, calls({"a": 1}), "done")
    config = {"max_tool_response_chars": 20, "tool_response_keep": keep}
    trajectory = await roll(
        make_rollout(renderer, script, Adder(behave=lambda p: text), config=config)
    )
    response = trajectory.tool_records[0].response
    assert response.startswith(start)
    assert response.endswith(end)
    assert ("MIDDLE" in response) is (keep == "middle")


async def test_a_task_that_cannot_score_drops_the_trajectory(renderer: Renderer) -> None:
    task = FixedTask(lambda trajectory: 1 / 0)
    trajectory = await roll(make_rollout(renderer, said(renderer, "x"), task=task))
    assert trajectory.dropped
    assert "ZeroDivisionError" in str(trajectory.error)


async def test_samples_choose_tools_and_pass_arguments_on(renderer: Renderer) -> None:
    first, second = Adder("first"), Adder("second")
    row = sample(
        tool_selection=["second"],
        tools_kwargs={"second": {"create_kwargs": {"x": 1}, "execute_kwargs": {"y": 2}}},
    )
    script = said(renderer, calls({"a": 1}, name="second"), "done")
    trajectory = await roll(make_rollout(renderer, script, first, second), row)
    assert first.diary == []
    assert second.kwargs == [{"x": 1}, {"y": 2}]
    assert [s["function"]["name"] for s in trajectory.tool_schemas] == ["second"]


async def test_a_members_failure_leaves_its_siblings_alone(renderer: Renderer) -> None:
    failures = [InfraError("only me")]

    def behave(parameters: dict[str, Any]) -> str:
        if failures:
            raise failures.pop()
        return "fine"

    tool = Adder(behave=behave)
    script = said(renderer, calls({"a": 1}), "done")
    rollout = make_rollout(renderer, script, tool, config={"tool_retries": 0})
    async with rollout:
        group = await rollout.run_group(sample(), group_id="g", size=4, seed=0)
    assert sorted(t.dropped for t in group.trajectories) == [False, False, False, True]
    assert len(group.kept) == 3
    assert tool.live == set()


async def test_no_episode_waits_for_anothers_tool(renderer: Renderer) -> None:
    gate = asyncio.Event()

    async def wait_for_the_others(parameters: dict[str, Any]) -> str:
        if parameters["a"] == 0:
            await gate.wait()
        return "done"

    def script(session: str, turn: int, prompt: list[int]) -> list[int]:
        first = session.endswith("-0")
        if not first and turn == 1:
            gate.set()
        return said(renderer, calls({"a": 0 if first else 1}), "bye")[turn]

    rollout = make_rollout(renderer, script, Adder(behave=wait_for_the_others))
    async with rollout, asyncio.timeout(10):
        group = await rollout.run_group(sample(), group_id="g", size=2, seed=0)
    assert all(t.termination is Termination.ANSWERED for t in group.trajectories)


@pytest.mark.parametrize("steps", range(AWAITS))
async def test_cancelled_at_any_await_everything_is_released(
    renderer: Renderer, steps: int
) -> None:
    tool, teacher = Adder(), Teacher()
    script = said(renderer, calls({"a": 1}), "wrong", "right")
    rollout = make_rollout(renderer, script, tool, teacher=teacher)
    async with rollout:
        task = asyncio.create_task(rollout.run_group(sample(), group_id="g", size=1, seed=0))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert tool.live == set()
    assert teacher.live == set()
    assert tool.diary.count("create") == tool.diary.count("release")


async def test_the_longest_cancellation_test_reaches_the_end(renderer: Renderer) -> None:
    script = said(renderer, calls({"a": 1}), "wrong", "right")
    rollout = make_rollout(renderer, script, Adder(), teacher=Teacher())
    async with rollout:
        task = asyncio.create_task(rollout.run_group(sample(), group_id="g", size=1, seed=0))
        for _ in range(AWAITS - 1):
            await asyncio.sleep(0)
        assert task.done()


async def test_a_turn_cut_by_its_own_limit_did_not_fill_the_context(renderer: Renderer) -> None:
    script = said(renderer, "a long answer")
    rollout = make_rollout(renderer, script, config={"max_turn_tokens": 3}, model_max_tokens=500)
    assert (await roll(rollout)).termination is Termination.MAX_TOKENS
