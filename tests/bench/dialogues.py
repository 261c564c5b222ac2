"""Unequal dialogues with slow tools, free-running and in lock step.

The same 64 episodes run through the product's own rollout, 16 at a time, as an engine of 16
sequences would serve them. Free-running, each goes on as soon as its own tool is done and a
finished one makes room for the next. In lock step, a batch of 16 advances turn by turn and the
next batch begins when the last dialogue of this one is over. Number of tool calls per dialogue:
1 + geometric (mean about 2.9, at most 8); each turn writes 8 to 64 tokens at 5 ms a token (the
scripted engine waits; nothing is computed, so only the scheduling is compared).
"""

import asyncio
import random
import time
from typing import Any, TypedDict

from lockstep import LockStep

from agentrl.config.rollout import FailurePolicy, RolloutConfig
from agentrl.contracts.engine import Engine
from agentrl.contracts.sample import Sample
from agentrl.contracts.sandbox import Sandbox
from agentrl.contracts.task import BaseTask
from agentrl.contracts.tool import BaseTool, ToolResponse
from agentrl.contracts.trajectory import Termination
from agentrl.engines.scripted import ScriptedEngine
from agentrl.plugins.reference import load_plugin
from agentrl.plugins.schema import infer_schema
from agentrl.rewards.scoring import Scoring
from agentrl.rollout.actor import TokenActor
from agentrl.rollout.group import Rollout
from agentrl.templates.render import Renderer

EPISODES, AT_ONCE = 64, 16
TOOL_S = 0.5
TOKEN_S = 0.005
MOST_CALLS = 8


class Nothing(TypedDict):
    """No arguments."""


class Wait(BaseTool):
    """Takes half a second."""

    async def execute(
        self, instance_id: str, parameters: Nothing, **kwargs: Any
    ) -> tuple[ToolResponse, float, dict[str, Any]]:
        """Wait."""
        await asyncio.sleep(TOOL_S)
        return ToolResponse(text="done"), 0.0, {}


class NoTask(BaseTask):
    """Scores nothing."""

    def samples(self, split: Any) -> list[Sample]:
        """Return as many samples as there are episodes."""
        prompt = [{"role": "user", "content": "go"}]
        return [Sample(prompt=prompt, index=i) for i in range(EPISODES)]


class NoServices:
    """Lends nothing."""

    async def sandbox(self) -> Sandbox:
        """Refuse.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("the bench's tool needs no sandbox")


def script(renderer: Renderer, seed: int = 0) -> dict[str, list[list[int]]]:
    """Write every dialogue: its calls, then an answer, each of its own length."""
    rng = random.Random(seed)
    call = {"id": "c", "type": "function", "function": {"name": "wait", "arguments": {}}}
    filler = renderer.assistant({"role": "assistant", "content": "so"}, []).tolist()[:1]
    dialogues = {}
    for episode in range(EPISODES):
        calls = 1
        while calls < MOST_CALLS and rng.random() < 0.65:
            calls += 1
        turns = []
        for turn in range(calls + 1):
            said = [call] if turn < calls else []
            message = {"role": "assistant", "content": "", "tool_calls": said}
            written = renderer.assistant(message, []).tolist()
            turns.append(filler * max(rng.randint(8, 64) - len(written), 1) + written)
        dialogues[f"bench-{episode}-0"] = turns
    return dialogues


async def run_episodes(renderer: Renderer, *, lockstep: bool) -> float:
    """Return the seconds that all episodes take."""
    scripted = ScriptedEngine(script(renderer), token_delay_s=TOKEN_S)
    tool = Wait({}, infer_schema(Wait, where="bench"))
    samples = NoTask({}, train=None, test=None, seed=0).samples("train")
    began = time.perf_counter()
    for start in range(0, EPISODES, AT_ONCE) if lockstep else [0]:
        batch = samples[start : start + AT_ONCE] if lockstep else samples
        stepped = LockStep(scripted, len(batch))
        engine: Engine = stepped if lockstep else scripted
        rollout = Rollout(
            config=RolloutConfig(
                max_assistant_turns=MOST_CALLS + 1,
                max_response_tokens=4096,
                max_concurrent_episodes=AT_ONCE,
            ),
            actor=TokenActor(engine=engine, renderer=renderer, tool_format=renderer.tool_format),
            renderer=renderer,
            tools={tool.name: tool},
            interactions={},
            scoring=Scoring([], weights={}, failures=FailurePolicy()),
            services=NoServices(),
        )
        async with rollout, asyncio.TaskGroup() as group:
            for sample in batch:
                group.create_task(_run(rollout, sample, stepped))
    return time.perf_counter() - began


async def _run(rollout: Rollout, sample: Sample, stepped: LockStep) -> None:
    group = await rollout.run_group(sample, group_id=f"bench-{sample.index}", size=1, seed=0)
    assert group.trajectories[0].termination is Termination.ANSWERED
    stepped.leave()


def bench_scheduling(rounds: int = 3) -> float:
    """Return wall time free-running over wall time in lock step (median of rounds)."""
    renderer = Renderer(load_plugin("tasks/calculator/policy.py:build_tokenizer")())
    ratios = []
    for _ in range(rounds):
        free = asyncio.run(run_episodes(renderer, lockstep=False))
        stepped = asyncio.run(run_episodes(renderer, lockstep=True))
        print(f"{EPISODES} dialogues, {AT_ONCE} at once: free {free:.2f} s, lock {stepped:.2f} s")
        ratios.append(free / stepped)
    return sorted(ratios)[rounds // 2]
