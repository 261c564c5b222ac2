"""Runs a graph: a task for each ticket up to `Batch`, then step by step behind it."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, NamedTuple, TypeVar

from agentrl.errors import RunError
from agentrl.flow.graph import STEP, TICKET, DataflowGraph, Plan
from agentrl.flow.node import Node, Refuse, Step
from agentrl.flow.tickets import FlowState, Ticket, Tickets
from agentrl.shield import to_its_end, together

T = TypeVar("T")
Values = dict[str, Any]
"""What nodes have made, by their names."""


class Passed(NamedTuple):
    """A group's way to `Batch`: what each node made of it, and how many seconds it took.

    `refused` says why no step learns from it: a filter's reason, `stale` or `surplus`. `by` names
    the filter, or is "batch".
    """

    ticket: Ticket
    values: Values
    began: float
    seconds: float = 0.0
    refused: str | None = None
    by: str = "batch"

    def find(self, kind: type[T]) -> T | None:
        """Return the last value of a type that was made of it."""
        return next((v for v in reversed(self.values.values()) if isinstance(v, kind)), None)

    def ended(self) -> "Passed":
        """Return it with the seconds until now."""
        return self._replace(seconds=time.monotonic() - self.began)


Observer = Callable[[Passed], Awaitable[None]]
"""Told of every group: when it is refused, or when a step takes it."""


class Flow:
    """A graph at work; `running` makes it."""

    def __init__(
        self, plan: Plan, state: FlowState, version: int, told: Observer, max_refusals: int
    ) -> None:
        self.version, self._plan, self._told, self._max = version, plan, told, max_refusals
        self.tasks = asyncio.TaskGroup()
        self._tickets = Tickets(state, plan.batch)
        self._running: dict[Ticket, tuple[Passed, asyncio.Task[None]]] = {}
        self._ready: dict[Ticket, Passed] = {}
        self._news, self._refusals = asyncio.Event(), 0
        self._spent: defaultdict[str, float] = defaultdict(float)

    async def step(self) -> Values:
        """Gather a step's groups, run what stands behind `Batch`, and return what was made.

        A cancellation takes effect before a step or after it, never within.
        """
        taken = await self._take()
        values: Values = {name: [p.values[name] for p in taken] for name in taken[0].values}
        values[STEP] = Step(self.version + 1)
        await to_its_end(asyncio.create_task(self._work(self._plan.per_step, values)))
        for passed in taken:
            self._tickets.close(passed.ticket)
        self.version += 1
        return values

    def drain_metrics(self) -> dict[str, float]:
        """Return each node's seconds, and how often it ran and refused, since the last call."""
        spent, self._spent = self._spent, defaultdict(float)
        return dict(sorted(spent.items()))

    async def aclose(self) -> None:
        """Cancel what is running and wait for its clean-up."""
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._running.clear()

    async def _take(self) -> list[Passed]:
        """Wait for a step's groups; on-policy, nothing else runs from then on."""
        batch, tickets, taken = self._plan.batch, self._tickets, list[Passed]()
        tickets.open = True
        self._begin()
        self._news.set()
        while len(taken) < batch.n:
            await self._news.wait()
            self._news.clear()
            # In the order of their positions: what completes together is taken in that order.
            for ticket in sorted(self._ready):
                if tickets.is_stale(ticket, self.version):
                    await self._refuse(self._ready.pop(ticket), Refuse("stale"))
                elif tickets.may_take(ticket, self.version):
                    tickets.take(ticket)
                    taken.append(self._ready.pop(ticket))
        if not batch.ahead:
            await self._drop_surplus()
        for passed in taken:
            await self._told(passed)
        return sorted(taken)

    async def _drop_surplus(self) -> None:
        self._tickets.open = False
        surplus = [*self._ready.values(), *(p.ended() for p, _ in self._running.values())]
        self._ready.clear()
        await self.aclose()
        for passed in sorted(surplus):
            await self._told(passed._replace(refused="surplus"))
            self._tickets.close(passed.ticket, again=True)

    def _begin(self) -> None:
        while (ticket := self._tickets.begin(self.version)) is not None:
            passed = Passed(ticket, {TICKET: ticket}, time.monotonic())
            self._running[ticket] = passed, self.tasks.create_task(self._prepare(passed))

    async def _prepare(self, passed: Passed) -> None:
        """Run one group up to `Batch`."""
        by = await self._work(self._plan.per_group, passed.values)
        del self._running[passed.ticket]
        passed = passed.ended()
        if by is not None:
            return await self._refuse(passed._replace(by=by), passed.values[by])
        self._refusals = 0
        self._ready[passed.ticket] = passed
        self._news.set()

    async def _refuse(self, passed: Passed, refusal: Refuse) -> None:
        self._spent[f"flow/{passed.by}/refused"] += 1
        self._refusals += passed.by != "batch"
        await self._told(passed._replace(refused=refusal.reason))
        if self._refusals > self._max:
            raise RunError(
                f"flow: {self._refusals} groups in a row were refused, the last by {passed.by!r} "
                f"({refusal.reason}); loosen the filter, or raise flow.max_refusals={self._max}"
            )
        self._tickets.close(passed.ticket, again=refusal.again)
        self._begin()

    async def _work(self, stages: Sequence[list[Node]], values: Values) -> str | None:
        """Run stages one after another, into `values`; a filter's no ends it: return its name."""
        for stage in stages:
            calls = [self._call(part, values) for part in stage]
            made = await together(calls) if len(calls) > 1 else [await calls[0]]
            values.update(zip((part.name for part in stage), made, strict=True))
            for part in stage:
                if isinstance(values[part.name], Refuse) and STEP not in values:
                    return part.name
        return None

    async def _call(self, part: Node, values: Values) -> Any:
        began, sources = time.monotonic(), self._plan.sources[part.name]
        result = await part.run(**{name: values[maker] for name, (maker, _) in sources.items()})
        self._spent[f"timing_s/node/{part.name}"] += time.monotonic() - began
        if STEP not in values:
            self._spent[f"flow/{part.name}/count"] += 1
        return result


@asynccontextmanager
async def running(
    graph: DataflowGraph,
    state: FlowState,
    *,
    version: int = 0,
    told: Observer,
    max_refusals: int = 1000,
) -> AsyncIterator[Flow]:
    """Run a graph on from `state`, for weights of `version`; leaving cancels what still runs.

    A node that fails cancels its siblings and the body, and its error is what is raised.

    Raises:
        ConfigError: the graph does not work out.
    """
    flow = Flow(graph.plan(), state, version, told, max_refusals)
    try:
        async with flow.tasks, aclosing(flow):
            yield flow
    except BaseExceptionGroup as failed:
        raise failed.exceptions[-1] from failed.exceptions[-1].__cause__
