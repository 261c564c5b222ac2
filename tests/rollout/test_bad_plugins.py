import asyncio
from typing import Any

import pytest
from tests_support import Adder, FixedTask, Teacher, calls, make_rollout, roll, said, sample

from agentrl.contracts.message import Message
from agentrl.contracts.tool import ToolOutcome, ToolResponse
from agentrl.contracts.trajectory import Termination
from agentrl.errors import InfraError
from agentrl.templates.render import Renderer


class SlowToCreate(Adder):
    async def create(
        self, instance_id: str | None = None, **kwargs: Any
    ) -> tuple[str, ToolResponse]:
        await super().create(instance_id, **kwargs)
        await asyncio.Event().wait()
        raise AssertionError


class FailingToCreate(Adder):
    async def create(
        self, instance_id: str | None = None, **kwargs: Any
    ) -> tuple[str, ToolResponse]:
        await super().create(instance_id, **kwargs)
        raise InfraError("no room")


class NeverScores(Adder):
    async def calc_reward(self, instance_id: str, **kwargs: Any) -> float:
        raise AssertionError("was never created")


@pytest.mark.parametrize("limit", ["tool_timeout_s", "episode_timeout_s"])
async def test_a_tool_that_is_not_created_in_time_is_a_timeout(
    renderer: Renderer, limit: str
) -> None:
    class Slow(SlowToCreate, NeverScores):
        pass

    slow, quick, teacher = Slow("slow"), Adder("quick"), Teacher()
    rollout = make_rollout(renderer, [], slow, quick, teacher=teacher, config={limit: 0.05})
    trajectory = await roll(rollout)
    assert trajectory.termination is Termination.TIMEOUT
    assert trajectory.turns[1:] == ()
    assert slow.live == quick.live == teacher.live == set()
    assert "tool/slow" not in {e.source for e in trajectory.rewards}


async def test_a_tool_that_cannot_be_created_drops_and_releases_the_others(
    renderer: Renderer,
) -> None:
    bad, good = FailingToCreate("bad"), Adder("good")
    trajectory = await roll(make_rollout(renderer, [], bad, good))
    assert trajectory.termination is Termination.INFRA_ERROR
    assert trajectory.dropped
    assert "no room" in str(trajectory.error)
    assert bad.live == good.live == set()


async def test_an_interaction_that_cannot_start_is_finalized(renderer: Renderer) -> None:
    class Shy(Teacher):
        async def start_interaction(self, instance_id: str | None = None, **kwargs: Any) -> str:
            await super().start_interaction(instance_id, **kwargs)
            raise InfraError("not today")

    teacher = Shy()
    trajectory = await roll(make_rollout(renderer, [], teacher=teacher))
    assert trajectory.dropped
    assert "interaction 'teacher'" in str(trajectory.error) or "not today" in str(trajectory.error)
    assert teacher.live == set()


async def test_an_interaction_that_fails_to_answer_drops(renderer: Renderer) -> None:
    class Mute(Teacher):
        async def generate_response(
            self, instance_id: str, messages: list[Message], **kwargs: Any
        ) -> tuple[bool, str, float, dict[str, Any]]:
            raise KeyError("words")

    teacher = Mute()
    trajectory = await roll(make_rollout(renderer, said(renderer, "hello"), teacher=teacher))
    assert trajectory.termination is Termination.INFRA_ERROR
    assert "interaction 'teacher' generate_response: KeyError" in str(trajectory.error)
    assert len(trajectory.policy_turns) == 1
    assert teacher.live == set()


async def test_a_tool_that_cancels_itself_fails_as_data(renderer: Renderer) -> None:
    def cancel(parameters: dict[str, Any]) -> str:
        raise asyncio.CancelledError

    tool = Adder(behave=cancel)
    trajectory = await roll(make_rollout(renderer, said(renderer, calls({"a": 1})), tool))
    assert trajectory.tool_records[0].outcome is ToolOutcome.INFRA_ERROR
    assert trajectory.dropped
    assert tool.live == set()


@pytest.mark.parametrize("failure", [KeyError("x"), asyncio.CancelledError(), TimeoutError()])
async def test_a_release_that_fails_spoils_nothing(
    renderer: Renderer, failure: BaseException
) -> None:
    class Clinging(Adder):
        async def release(self, instance_id: str, **kwargs: Any) -> None:
            raise failure

    good, teacher = Adder("good"), Teacher()
    script = said(renderer, "right")
    trajectory = await roll(
        make_rollout(renderer, script, Clinging("clinging"), good, teacher=teacher)
    )
    assert trajectory.termination is Termination.INTERACTION_END
    assert good.live == teacher.live == set()


async def test_a_release_that_is_not_a_coroutine_spoils_nothing(renderer: Renderer) -> None:
    class Plain(Adder):
        def release(self, instance_id: str) -> None:  # type: ignore[override]
            raise KeyError("at once")

    class PlainTeacher(Teacher):
        def finalize_interaction(self, instance_id: str) -> None:  # type: ignore[override]
            raise KeyError("at once")

    good = Adder("good")
    script = said(renderer, "right")
    rollout = make_rollout(renderer, script, Plain("plain"), good, teacher=PlainTeacher())
    assert (await roll(rollout)).termination is Termination.INTERACTION_END
    assert good.live == set()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "much"])
async def test_a_reward_that_is_no_number_drops(renderer: Renderer, bad: Any) -> None:
    script = said(renderer, calls({"a": 1}), "x")
    by_task = await roll(make_rollout(renderer, script, task=FixedTask(lambda t: bad)))
    by_tool = await roll(make_rollout(renderer, script, Adder(reward=bad)))
    assert by_task.dropped
    assert by_tool.dropped
    assert by_task.reward == by_task.reward


async def test_a_step_reward_that_is_no_number_fails_the_call(renderer: Renderer) -> None:
    class Odd(Adder):
        async def execute(self, instance_id: str, parameters: dict[str, Any], **kwargs: Any) -> Any:
            return ToolResponse(text="x"), float("nan"), {}

    trajectory = await roll(make_rollout(renderer, said(renderer, calls({"a": 1})), Odd()))
    assert trajectory.tool_records[0].outcome is ToolOutcome.INFRA_ERROR


async def test_every_tool_is_closed_even_if_one_fails_to(renderer: Renderer) -> None:
    closed: list[str] = []

    class Closing(Adder):
        async def close(self) -> None:
            closed.append(self.name)
            if self.name == "b":
                raise OSError("stuck")

    rollout = make_rollout(renderer, [], Closing("a"), Closing("b"), Closing("c"))
    with pytest.raises(OSError, match="stuck"):
        async with rollout:
            pass
    assert closed == ["c", "b", "a"]


async def test_a_tool_that_does_not_open_closes_those_that_did(renderer: Renderer) -> None:
    class Opening(Adder):
        async def open(self, services: Any) -> None:
            self.diary.append("open")
            if self.name == "b":
                raise OSError("no backend")

        async def close(self) -> None:
            self.diary.append("close")

    tools = [Opening("a"), Opening("b"), Opening("c")]
    with pytest.raises(OSError, match="no backend"):
        async with make_rollout(renderer, [], *tools):
            raise AssertionError
    assert [tool.diary for tool in tools] == [["open", "close"], ["open", "close"], []]


@pytest.mark.parametrize("second", range(0, 12))
@pytest.mark.parametrize("first", range(3, 30, 4))
async def test_a_second_cancellation_in_the_middle_of_the_release_waits_for_it(
    renderer: Renderer, first: int, second: int
) -> None:
    class Lingering(Adder):
        async def release(self, instance_id: str, **kwargs: Any) -> None:
            for _ in range(4):
                await asyncio.sleep(0)
            await super().release(instance_id)

    tools, teacher = [Lingering("add"), Lingering("other")], Teacher()
    script = said(renderer, calls({"a": 1}, {"a": 2}), "wrong", "right")
    async with make_rollout(renderer, script, *tools, teacher=teacher) as rollout:
        task = asyncio.create_task(rollout.run_group(sample(), group_id="g", size=2, seed=0))
        for steps in (first, second):
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait([task])
        assert [tool.live for tool in tools] == [set(), set()]
        assert teacher.live == set()
