"""Plugins that never return: tools, interactions, scorers, and who waits behind them."""

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "support"))

from tests_support import ADD, Adder, NoServices, Teacher, calls, said, sample, schema

from agentrl.config.rewards import RewardConfig
from agentrl.config.rollout import RolloutConfig
from agentrl.contracts.engine import Engine
from agentrl.contracts.trajectory import Group
from agentrl.engines.scripted import ScriptedEngine
from agentrl.plugins.adapt import adapt_tool
from agentrl.rewards import scoring
from agentrl.rewards.functions import RewardFunction
from agentrl.rollout.actor import TokenActor
from agentrl.rollout.group import Rollout
from agentrl.templates.render import Renderer


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One injection: what must be told, and the work that waits for it.

    Attributes:
        kind: what was injected.
        resource: part of the told line that names what is waited for.
        waiter: part of it that names who waits.
        work: injects the fault, and ends when the product has given up; returns how it ended.
    """

    kind: str
    resource: str
    waiter: str
    work: Callable[[], Awaitable[str]]


@dataclass(frozen=True)
class Times:
    """Scaled: the age at which waits are told, and the deadline of those that have a setting."""

    tell_after_s: float

    @property
    def deadline_s(self) -> float:
        """When the product gives up: later than it tells."""
        return 1.5 * self.tell_after_s + 1


async def _never(*args: Any, **kwargs: Any) -> Any:
    await asyncio.Event().wait()


async def _clings(*args: Any, **kwargs: Any) -> Any:
    while True:
        with suppress(asyncio.CancelledError):  # as a bare `except` around a retry loop does
            await asyncio.Event().wait()


_INTERACTION = (
    "start_interaction",
    "generate_response",
    "calculate_score",
    "finalize_interaction",
)


class Plain:
    """Another library's tool, whose `execute` is a plain function that hangs."""

    def create(self, instance_id: str | None = None, **kwargs: Any) -> str | None:
        """Begin."""
        return instance_id

    def execute(self, instance_id: str, parameters: dict[str, Any], **kwargs: Any) -> Any:
        """Hang."""
        threading.Event().wait()


def plugin_faults(renderer: Renderer, times: Times, number: int) -> Iterator[Fault]:
    """Yield the faults of one round."""
    roll = partial(play, renderer, times)
    for method in ("create", "execute", "calc_reward", "release"):
        stuck = Adder(f"tool_{method}")
        setattr(stuck, method, _never)
        group = f"tool-{method}-{number}"
        yield Fault(
            kind=f"tool {method}",
            resource=f"tool '{stuck.name}': {method}",
            waiter=f"episode {group}-0",
            work=partial(roll, group, tool=stuck),
        )
    clinging = Adder("clinging")
    clinging.execute = _clings  # type: ignore[method-assign]
    plain = adapt_tool(Plain(), schema("plain"), where="bench")
    for kind, tool in (("swallows its cancellation", clinging), ("is a plain function", plain)):
        group = f"tool-{tool.name}-{number}"
        yield Fault(
            kind=f"tool that never returns {kind}",
            resource=f"tool '{tool.name}': execute",
            waiter=f"episode {group}-0",
            work=partial(roll, group, tool=tool),
        )
    for method in _INTERACTION:
        teacher, group = Teacher(), f"{method}-{number}"
        teacher.name = f"teacher_{method}"
        setattr(teacher, method, _never)
        yield Fault(
            kind=f"interaction {method}",
            resource=f"interaction '{teacher.name}': {method.partition('_inter')[0]}",
            waiter=f"episode {group}-0",
            work=partial(roll, group, teacher=teacher),
        )
    # One call more than the scorer has places: it waits behind calls that hang.
    for name, score, size, resource in (
        ("slow", _never_scores, 1, "scorer 'slow'"),
        ("plain", _hang, 1, "scorer 'plain'"),
        ("busy", _never_scores, scoring._AT_ONCE + 1, "queue: scorer 'busy'"),
    ):
        group = f"scorer-{name}-{number}"
        yield Fault(
            kind=resource,
            resource=resource,
            waiter=f"group {group}",
            work=partial(roll, group, scorers={name: score}, size=size),
        )
    stuck, group = Adder("hog"), f"places-{number}"
    stuck.execute = _never  # type: ignore[method-assign]
    yield Fault(
        kind="queue for an episode's place",
        resource="queue: a place among rollout.max_concurrent_episodes",
        waiter=f"episode {group}-1",
        work=partial(roll, group, tool=stuck, size=2, at_once=1),
    )


async def _never_scores(trajectory: Any) -> float:
    await asyncio.Event().wait()
    return 0.0


def _hang(trajectory: Any) -> float:
    threading.Event().wait()
    return 0.0


async def play(
    renderer: Renderer,
    times: Times,
    group: str,
    *,
    tool: Any = None,
    teacher: Teacher | None = None,
    scorers: Mapping[str, Any] | None = None,
    size: int = 1,
    at_once: int = 256,
    engine: Engine | None = None,
) -> str:
    """Play one group through the product's rollout; return how its last member ended."""
    tool = tool or Adder()
    config = RolloutConfig(
        max_response_tokens=1000,
        group_size=size,
        tool_timeout_s=times.deadline_s,
        episode_timeout_s=600 if engine is None else times.deadline_s,
        tool_retries=0,
        max_concurrent_episodes=at_once,
    )
    script = said(renderer, calls({"a": 1}, name=tool.name or ADD), "wrong", "right")
    terms = [
        (
            RewardConfig(type="bench.py:score", name=name, timeout_s=times.deadline_s, retries=0),
            RewardFunction(function, name, {}, NoServices()),
        )
        for name, function in (scorers or {}).items()
    ]
    rollout = Rollout(
        config=config,
        actor=TokenActor(
            engine=engine or ScriptedEngine(script),
            renderer=renderer,
            tool_format=renderer.tool_format,
        ),
        renderer=renderer,
        tools={tool.name: tool},
        interactions={teacher.name: teacher} if teacher else {},
        scoring=scoring.Scoring(terms, weights={}, failures=config.failures),
        services=NoServices(),
    )
    row = sample(interaction_kwargs={"name": teacher.name}) if teacher else sample()
    async with rollout:
        played: Group = await rollout.run_group(row, group_id=group, size=size, seed=0)
    last = played.trajectories[-1]
    outcomes = ", ".join(record.outcome.value for record in last.tool_records)
    return f"{last.termination.value} ({last.failure or outcomes})"
