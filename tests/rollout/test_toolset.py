import asyncio
from typing import Any

import pytest
from tests_support import Adder, Teacher, calls, make_rollout, roll, said, sample

from agentrl.contracts.media import Media
from agentrl.contracts.message import Message
from agentrl.contracts.tool import ToolOutcome, ToolResponse
from agentrl.contracts.trajectory import Termination
from agentrl.errors import InfraError
from agentrl.templates.render import Renderer


class Consuming(Adder):
    """Takes its arguments apart, and fails the first time."""

    async def execute(self, instance_id: str, parameters: dict[str, Any], **kwargs: Any) -> Any:
        first = not self.diary.count("execute")
        self.diary.append("execute")
        number = parameters.pop("a")
        kwargs["seen"].append(number)
        if first:
            raise InfraError("once")
        return ToolResponse(text=f"{number} {kwargs['seen']}"), 0.0, {}


async def test_a_tool_that_alters_its_arguments_alters_nothing_else(renderer: Renderer) -> None:
    row = sample(tools_kwargs={"add": {"execute_kwargs": {"seen": []}}})
    script = said(renderer, calls({"a": 7}), "done")
    trajectory = await roll(make_rollout(renderer, script, Consuming()), row)
    (record,) = trajectory.tool_records
    assert (record.outcome, record.attempts) == (ToolOutcome.OK, 2)
    assert record.response == "7 [7]"
    assert record.call.arguments == {"a": 7}
    (written,) = trajectory.turns[1].messages[0]["tool_calls"]
    assert written["function"]["arguments"] == {"a": 7}
    assert row.tools_kwargs["add"]["execute_kwargs"] == {"seen": []}


async def test_an_interaction_that_alters_messages_alters_nothing_else(renderer: Renderer) -> None:
    class Rewriting(Teacher):
        async def generate_response(
            self, instance_id: str, messages: list[Message], **kwargs: Any
        ) -> tuple[bool, str, float, dict[str, Any]]:
            for message in messages:
                message["content"] = "rewritten"
            return True, "bye", 0.0, {}

    row = sample()
    trajectory = await roll(
        make_rollout(renderer, said(renderer, "hello"), teacher=Rewriting()), row
    )
    assert [m["content"] for m in trajectory.messages] == ["go", "hello", "bye"]


async def test_every_method_gets_the_arguments_of_the_sample(renderer: Renderer) -> None:
    given: dict[str, Any] = {}

    class Listening(Adder):
        async def calc_reward(self, instance_id: str, **kwargs: Any) -> float:
            given["calc_reward"] = kwargs
            return 0.0

        async def release(self, instance_id: str, **kwargs: Any) -> None:
            given["release"] = kwargs

    row = sample(tools_kwargs={"add": {"calc_reward_kwargs": {"x": 1}, "release_kwargs": {"y": 2}}})
    await roll(make_rollout(renderer, said(renderer, "x"), Listening()), row)
    assert given == {"calc_reward": {"x": 1}, "release": {"y": 2}}


@pytest.mark.parametrize("result", [None, "words", ("words", 0.0, {}), (ToolResponse(), 0.0)])
async def test_a_tool_of_ours_that_returns_something_else_is_told_what(
    renderer: Renderer, result: Any
) -> None:
    class Odd(Adder):
        async def execute(self, instance_id: str, parameters: dict[str, Any], **kwargs: Any) -> Any:
            return result

    trajectory = await roll(make_rollout(renderer, said(renderer, calls({"a": 1}), "x"), Odd()))
    (record,) = trajectory.tool_records
    assert record.outcome is ToolOutcome.INFRA_ERROR
    assert record.failure is not None
    assert (record.failure.kind, record.failure.type) == ("PluginError", "TypeError")
    expected = "tool 'add': TypeError: expected (ToolResponse, reward, metrics) from `execute`, got"
    assert record.failure.message.startswith(expected)


async def test_a_tool_of_ours_that_creates_without_a_response_is_told_so(
    renderer: Renderer,
) -> None:
    class Bare(Adder):
        async def create(self, instance_id: str | None = None, **kwargs: Any) -> Any:
            return instance_id

    trajectory = await roll(make_rollout(renderer, [], Bare()))
    expected = "tool 'add' create: TypeError: expected (instance_id, ToolResponse), got 'g-0'"
    assert trajectory.error == expected


@pytest.mark.parametrize(("kind", "named"), [("image", "an image"), ("video", "a video")])
async def test_what_the_policy_cannot_see_is_one_clear_error_at_the_call(
    renderer: Renderer, kind: Any, named: str
) -> None:
    class Camera(Adder):
        async def execute(self, instance_id: str, parameters: dict[str, Any], **kwargs: Any) -> Any:
            return ToolResponse.model_validate({"text": "click", kind: [b"a cat"]}), 0.0, {}

    script = said(renderer, calls({"a": 1}, name="camera"), "x")
    trajectory = await roll(make_rollout(renderer, script, Camera("camera")))
    (record,) = trajectory.tool_records
    assert trajectory.termination is Termination.INFRA_ERROR
    assert record.outcome is ToolOutcome.INFRA_ERROR
    assert record.media == (Media.of(kind, b"a cat"),)
    assert record.failure is not None
    assert record.failure.kind == "PluginError"
    assert record.failure.message.startswith(
        f"tool 'camera' returned {named}; the policy has no eyes yet: "
    )


async def test_siblings_do_not_share_what_an_interaction_is_given(renderer: Renderer) -> None:
    class Marking(Teacher):
        async def start_interaction(self, instance_id: str | None = None, **kwargs: Any) -> str:
            kwargs["seen"].append(instance_id)
            return await super().start_interaction(instance_id)

    row = sample(interaction_kwargs={"seen": []})
    await roll(make_rollout(renderer, said(renderer, "right"), teacher=Marking()), row)
    assert row.interaction_kwargs == {"seen": []}


async def test_calls_that_the_episodes_deadline_cuts_off_are_cancelled(renderer: Renderer) -> None:
    async def behave(parameters: dict[str, Any]) -> str:
        if parameters["a"] == 2:
            await asyncio.Event().wait()
        return "quick"

    tool = Adder(behave=behave)
    script = said(renderer, calls({"a": 1}, {"a": 2}), "x")
    rollout = make_rollout(renderer, script, tool, config={"episode_timeout_s": 0.2})
    trajectory = await roll(rollout)
    assert trajectory.termination is Termination.TIMEOUT
    outcomes = [(r.outcome, r.response) for r in trajectory.tool_records]
    assert outcomes == [
        (ToolOutcome.OK, "quick"),
        (ToolOutcome.CANCELLED, "Error: cancelled"),
    ]
    assert trajectory.rewards.of("tool_step/add") == 0.25
    assert len(trajectory.turns[-1].token_ids) == 0
    assert tool.live == set()
