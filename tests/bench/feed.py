"""Which prompts are trained on, and how long a step takes: the real flow on a virtual clock.

    python tests/bench/feed.py

Shares: a fifth of the prompts takes six times as long; the share of them among what was trained on
over their share of what was begun, by `max_staleness` 1, 2, 4 and by `oversample` 1.25 (on-policy).
Step times: log-normal durations of mean 1 and sigma 0.5 and an update of 0.3; `max_staleness` 1 by
the default over the biased mode, and over strictly on-policy. The last line is one JSON object.
"""

import asyncio
import json
import math
import random
import selectors
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agentrl.flow.graph import DataflowGraph
from agentrl.flow.node import Batch, Node
from agentrl.flow.run import Passed, running
from agentrl.flow.tickets import Ticket

N, STEPS, UPDATE_S = 64, 200, 0.3
Duration = Callable[[int], float]


class Position(int):
    """A prompt that was rolled out."""


@dataclass
class State:
    """Where the run stands."""

    position: int = 0
    pending: list[int] = field(default_factory=list)


class VirtualSelector(selectors.DefaultSelector):
    """Waits for nothing: it moves the clock on."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        """Advance by what would have been waited."""
        self.now += timeout or 0.0
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose seconds pass as fast as it can run."""

    def __init__(self) -> None:
        self.clock = VirtualSelector()
        super().__init__(self.clock)

    def time(self) -> float:
        """Return virtual seconds."""
        return self.clock.now


def is_slow(position: int) -> bool:
    """Whether a prompt is of the slow fifth, by a draw of its own."""
    return random.Random(f"class {position}").random() < 0.2


def classes(position: int) -> float:
    """Return a duration: six times as long for the slow fifth."""
    jitter = random.Random(f"jitter {position}").uniform(0.8, 1.2)
    return jitter * (6.0 if is_slow(position) else 1.0)


def log_normal(position: int) -> float:
    """Return a duration of mean 1."""
    return random.Random(f"duration {position}").lognormvariate(-0.125, 0.5)


async def train(batch: Batch, duration: Duration) -> tuple[float, float]:
    """Train; return the trained over the begun share of slow prompts, and seconds a step."""
    trained: list[int] = []
    begun: set[int] = set()

    async def rollout(ticket: Ticket) -> Position:
        begun.add(ticket.position)
        await asyncio.sleep(duration(ticket.position))
        return Position(ticket.position)

    async def update(groups: list[Position]) -> None:
        trained.extend(groups)
        await asyncio.sleep(UPDATE_S)

    async def told(passed: Passed) -> None:
        return None

    graph = DataflowGraph(Node(rollout) >> batch >> update)
    began = asyncio.get_running_loop().time()
    async with running(graph, State(), told=told) as flow:
        for _ in range(STEPS):
            await flow.step()
    # What still runs at the end has had no chance yet.
    known = [p for p in begun if p < max(trained) - batch.n * (batch.ahead + 1)] or trained
    share = sum(map(is_slow, trained)) / len(trained)
    return share / (sum(map(is_slow, known)) / len(known)), (
        asyncio.get_running_loop().time() - began
    ) / STEPS


def measure(batch: Batch, duration: Duration) -> tuple[float, float]:
    """Run `train` on a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(train(batch, duration))


def main() -> None:
    """Measure, print a table and the JSON line."""
    figures: dict[str, float] = {}
    for name, ahead, oversample in (
        ("s1", 1, 1.0), ("s2", 2, 1.0), ("s4", 4, 1.0), ("over125", 0, 1.25),
    ):  # fmt: skip
        fair, fair_s = measure(Batch(N, ahead=ahead, oversample=oversample), classes)
        biased, biased_s = measure(
            Batch(N, ahead=ahead, oversample=oversample, first=True), classes
        )
        print(
            f"{name}: {fair:.3f} at {fair_s:.2f} s a step; take=first {biased:.3f}, {biased_s:.2f}"
        )
        figures[f"slow_share_{name}"] = round(fair, 3)
    _, fair_s = measure(Batch(N, ahead=1), log_normal)
    _, biased_s = measure(Batch(N, ahead=1, first=True), log_normal)
    _, on_policy_s = measure(Batch(N), log_normal)
    print(f"step: {fair_s:.2f} s; take=first {biased_s:.2f} s; on-policy {on_policy_s:.2f} s")
    figures["step_time_vs_biased"] = round(fair_s / biased_s, 3)
    figures["step_time_vs_on_policy"] = round(fair_s / on_policy_s, 3)
    assert all(math.isfinite(value) for value in figures.values())
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
