import asyncio
import time
from typing import Any

from tests_support import Adder, calls, make_rollout, roll, said, sample

from agentrl.contracts.tool import ToolOutcome, ToolResponse
from agentrl.plugins.adapt import adapt_tool
from agentrl.templates.render import Renderer
from agentrl.turnstile import Turnstile


class Holding(Adder):
    """Holds the event loop for longer than it may take, and then answers."""

    async def execute(self, instance_id: str, parameters: dict[str, Any], **kwargs: Any) -> Any:
        time.sleep(0.4)
        return ToolResponse(text="late"), 1.0, {}


class Plain:
    """Another library's: no base of ours, and no coroutine."""

    def create(self, instance_id: str | None = None, **kwargs: Any) -> str | None:
        return instance_id

    def execute(self, instance_id: str, parameters: dict[str, Any], **kwargs: Any) -> Any:
        time.sleep(0.4)
        return ToolResponse(text="slow"), 0.0, {}


async def test_a_tool_that_held_the_loop_past_its_time_has_timed_out(renderer: Renderer) -> None:
    script = said(renderer, calls({"a": 1}), "done")
    rollout = make_rollout(renderer, script, Holding(), config={"tool_timeout_s": 0.2})
    (record,) = (await roll(rollout, sample())).tool_records
    assert record.outcome is ToolOutcome.TIMEOUT
    assert "late" not in record.response
    assert record.reward == 0


async def test_a_plain_function_of_a_tool_leaves_the_loop_free(renderer: Renderer) -> None:
    tool = adapt_tool(Plain(), Adder().tool_schema, where="test")
    rollout = make_rollout(renderer, said(renderer, calls({"a": 1}), "done"), tool)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.02)
            ticks += 1

    ticking = asyncio.create_task(tick())
    (record,) = (await roll(rollout, sample())).tool_records
    ticking.cancel()
    assert (record.outcome, record.response) == (ToolOutcome.OK, "slow")
    assert ticks > 5


async def test_a_turnstile_lets_few_pass_at_a_time_in_their_order() -> None:
    turnstile, passed = Turnstile(at_once=2), list[int]()

    async def enter(number: int) -> None:
        await turnstile.enter()
        passed.append(number)

    tasks = [asyncio.create_task(enter(number)) for number in range(7)]
    tasks[3].cancel()
    seen = []
    while len(passed) < 6:
        await asyncio.sleep(0)
        seen.append(len(passed))
    assert passed == [0, 1, 2, 4, 5, 6]
    assert max(b - a for a, b in zip([0, *seen], seen, strict=False)) <= 2
