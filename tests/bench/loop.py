"""What thousands of episodes at once cost the event loop: its lag, memory, episodes a second.

    python tests/bench/loop.py

4,096 scripted episodes (512 groups of 8) of two tool calls that take 50 ms each and 1,300 tokens,
through the product's own rollout, all at once. Lag is measured by a task that sleeps 5 ms at a
time; memory is what the process grew by at its peak, over the episodes. The last line is one JSON
object.
"""

import asyncio
import json
import resource
import time
from typing import Any

from dialogues import NoServices, NoTask, Nothing

from agentrl.config.rollout import FailurePolicy, RolloutConfig
from agentrl.contracts.engine import Completion, Prompt, Sampling
from agentrl.contracts.tool import BaseTool, ToolResponse
from agentrl.contracts.trajectory import Group, Termination
from agentrl.engines.scripted import ScriptedEngine
from agentrl.plugins.reference import load_plugin
from agentrl.plugins.schema import infer_schema
from agentrl.rewards.scoring import Scoring
from agentrl.rollout.actor import TokenActor
from agentrl.rollout.group import Rollout
from agentrl.templates.render import Renderer

GROUPS, SIZE, CALLS, TOKENS = 512, 8, 2, 1300
TOOL_S, TICK_S = 0.05, 0.005


class Wait(BaseTool):
    """Takes 50 ms."""

    async def execute(
        self, instance_id: str, parameters: Nothing, **kwargs: Any
    ) -> tuple[ToolResponse, float, dict[str, Any]]:
        """Wait."""
        await asyncio.sleep(TOOL_S)
        return ToolResponse(text="done"), 0.0, {}


class Forgetful(ScriptedEngine):
    """A scripted engine that keeps no record of its requests."""

    async def generate(self, prompt: Prompt, sampling: Sampling, *, session: str) -> Completion:
        """Play the next reply."""
        reply = await super().generate(prompt, sampling, session=session)
        self.requests.clear()
        return reply


def script(renderer: Renderer) -> list[list[int]]:
    """Write one dialogue: two calls, then an answer."""
    call = {"id": "c", "type": "function", "function": {"name": "wait", "arguments": {}}}
    filler = renderer.assistant({"role": "assistant", "content": "so"}, []).tolist()[:1]
    turns = []
    for turn in range(CALLS + 1):
        message = {"role": "assistant", "content": "", "tool_calls": [call] * (turn < CALLS)}
        written = renderer.assistant(message, []).tolist()
        turns.append(filler * (TOKENS // (CALLS + 1) - len(written)) + written)
    return turns


async def measure() -> dict[str, float]:
    """Run all episodes at once."""
    renderer = Renderer(load_plugin("tasks/calculator/policy.py:build_tokenizer")())
    tool = Wait({}, infer_schema(Wait, where="bench"))
    rollout = Rollout(
        config=RolloutConfig(
            max_response_tokens=4096, max_concurrent_episodes=GROUPS * SIZE, group_size=SIZE
        ),
        actor=TokenActor(
            engine=Forgetful(script(renderer)),
            renderer=renderer,
            tool_format=renderer.tool_format,
        ),
        renderer=renderer,
        tools={tool.name: tool},
        interactions={},
        scoring=Scoring([], weights={}, failures=FailurePolicy()),
        services=NoServices(),
    )
    sample = NoTask({}, train=None, test=None, seed=0).samples("train")[0]
    lags: list[float] = []

    async def tick() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TICK_S)
            lags.append(time.perf_counter() - began - TICK_S)

    async def run(position: int) -> Group:
        return await rollout.run_group(sample, group_id=f"g{position}", size=SIZE, seed=position)

    async with rollout:
        await run(-1)  # what is made once
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ticking, began = asyncio.create_task(tick()), time.perf_counter()
        groups = await asyncio.gather(*(run(position) for position in range(GROUPS)))
        took_s = time.perf_counter() - began
        ticking.cancel()
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    trajectories = [t for group in groups for t in group.trajectories]
    assert all(t.termination is Termination.ANSWERED for t in trajectories)
    written = sum(len(turn.token_ids) for turn in trajectories[0].policy_turns)
    count = len(trajectories)
    print(f"{count} episodes of {written} tokens written in {took_s:.1f} s; {len(lags)} ticks")
    lags.sort()
    return {
        "lag_p99_ms": round(lags[int(len(lags) * 0.99)] * 1e3, 1),
        "kb_per_episode": round(grown_kb / count, 1),
        "episodes_per_s": round(count / took_s, 1),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure())))
