"""Plugins and builders that several tests share."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from agentrl.config.rollout import RolloutConfig
from agentrl.contracts.engine import Engine
from agentrl.contracts.interaction import BaseInteraction
from agentrl.contracts.message import Message
from agentrl.contracts.sample import Sample
from agentrl.contracts.sandbox import Sandbox
from agentrl.contracts.task import BaseTask
from agentrl.contracts.tool import BaseTool, FunctionSchema, ToolResponse, ToolSchema
from agentrl.contracts.trajectory import Trajectory
from agentrl.engines.scripted import ScriptedEngine
from agentrl.rollout.render import Renderer
from agentrl.rollout.rollout import Rollout

ADD = "add"
PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a"],
}


def schema(name: str = ADD) -> ToolSchema:
    return ToolSchema(
        function=FunctionSchema(name=name, description="Adds.", parameters=PARAMETERS)
    )


SCHEMAS = [schema().for_template()]


def call_message(call_id: str, name: str, arguments: dict[str, Any]) -> Message:
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": call_id, "type": "function", "function": function}],
    }


def tool_message(call_id: str, name: str, content: str) -> Message:
    return {"role": "tool", "tool_call_id": call_id, "name": name, "content": content}


class Adder(BaseTool):
    """Adds, and keeps a diary of what was done to it."""

    def __init__(
        self,
        name: str = ADD,
        behave: Callable[[dict[str, Any]], Any] | None = None,
        reward: float = 0.0,
    ) -> None:
        super().__init__({}, schema(name))
        self.diary: list[str] = []
        self.live: set[str] = set()
        self.kwargs: list[dict[str, Any]] = []
        self._behave = behave
        self._reward = reward

    async def create(
        self, instance_id: str | None = None, **kwargs: Any
    ) -> tuple[str, ToolResponse]:
        assert instance_id is not None
        self.diary.append("create")
        self.live.add(instance_id)
        self.kwargs.append(kwargs)
        await asyncio.sleep(0)
        return instance_id, ToolResponse()

    async def execute(
        self, instance_id: str, parameters: dict[str, Any], **kwargs: Any
    ) -> tuple[ToolResponse, float, dict[str, Any]]:
        self.diary.append("execute")
        self.kwargs.append(kwargs)
        await asyncio.sleep(0)
        if self._behave is not None:
            result = self._behave(parameters)
            if asyncio.iscoroutine(result):
                result = await result
            return ToolResponse(text=str(result)), 0.25, {"seen": True}
        total = parameters["a"] + parameters.get("b", 0)
        return ToolResponse(text=str(total)), 0.25, {"seen": True}

    async def calc_reward(self, instance_id: str, **kwargs: Any) -> float:
        await asyncio.sleep(0)
        return self._reward

    async def release(self, instance_id: str, **kwargs: Any) -> None:
        await asyncio.sleep(0)
        self.diary.append("release")
        self.live.discard(instance_id)


class Teacher(BaseInteraction):
    """Says no until the policy says the word."""

    def __init__(self, word: str = "right") -> None:
        super().__init__({"name": "teacher"})
        self.live: set[str] = set()
        self._word = word

    async def start_interaction(self, instance_id: str | None = None, **kwargs: Any) -> str:
        assert instance_id is not None
        self.live.add(instance_id)
        await asyncio.sleep(0)
        return instance_id

    async def generate_response(
        self, instance_id: str, messages: list[Message], **kwargs: Any
    ) -> tuple[bool, str, float, dict[str, Any]]:
        await asyncio.sleep(0)
        good = self._word in str(messages[-1]["content"])
        return good, "well done" if good else "try again", float(good), {}

    async def calculate_score(self, instance_id: str, **kwargs: Any) -> float:
        return 2.0

    async def finalize_interaction(self, instance_id: str, **kwargs: Any) -> None:
        await asyncio.sleep(0)
        self.live.discard(instance_id)


class FixedTask(BaseTask):
    """Scores every trajectory alike, or as a function says."""

    def __init__(self, score: Callable[[Trajectory], float] = lambda trajectory: 1.0) -> None:
        super().__init__({}, train=None, test=None, seed=0)
        self._score = score

    def samples(self, split: str) -> Sequence[Sample]:
        return [sample()]

    async def score(self, trajectory: Trajectory, services: Any) -> float:
        await asyncio.sleep(0)
        return self._score(trajectory)


class NoServices:
    async def sandbox(self) -> Sandbox:
        raise AssertionError("no sandbox in this test")


def sample(**fields: Any) -> Sample:
    return Sample(prompt=[{"role": "user", "content": "go"}], **fields)


def said(renderer: Renderer, *turns: str | Message) -> list[list[int]]:
    """Encode what the policy is to write, one entry a turn, with its stop token."""
    messages = [t if isinstance(t, dict) else {"role": "assistant", "content": t} for t in turns]
    return [renderer.assistant(message, SCHEMAS).tolist() for message in messages]


def calls(*arguments: dict[str, Any], name: str = ADD) -> Message:
    """Return an assistant message with one call for each arguments."""
    messages = [call_message(f"c{i}", name, a) for i, a in enumerate(arguments)]
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [m["tool_calls"][0] for m in messages],
    }


def make_rollout(
    renderer: Renderer,
    script: Any,
    *tools: Adder,
    config: dict[str, Any] | None = None,
    teacher: Teacher | None = None,
    task: BaseTask | None = None,
    weights: dict[str, float] | None = None,
    engine: Engine | None = None,
    model_max_tokens: int | None = None,
) -> Rollout:
    settings = {"max_response_tokens": 1000, "max_assistant_turns": 8, **(config or {})}
    return Rollout(
        config=RolloutConfig.model_validate(settings),
        engine=engine or ScriptedEngine(script),
        renderer=renderer,
        tools={tool.name: tool for tool in tools},
        interactions={teacher.name: teacher} if teacher else {},
        task=task or FixedTask(),
        services=NoServices(),
        reward_weights=weights or {},
        model_max_tokens=model_max_tokens,
    )


async def roll(rollout: Rollout, row: Sample | None = None) -> Trajectory:
    async with rollout:
        group = await rollout.run_group(row or sample(), group_id="g", size=1, seed=0)
    return group.trajectories[0]
