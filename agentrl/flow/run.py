"""Runs a graph: a task for each ticket up to `Batch`, then step by step behind it."""

import asyncio
import inspect
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

from agentrl.errors import RunError
from agentrl.flow.graph import STEP, TICKET, DataflowGraph, Plan
from agentrl.flow.node import Node, Refuse, Step
from agentrl.flow.tickets import FlowState, Ticket, Tickets
from agentrl.shield import to_its_end

T = TypeVar("T")
Values = dict[str, Any]


class Passed(NamedTuple):
    """A group's way to `Batch`: what each node made of it, and how many seconds it took.

    `refused` says why no step learns from it: a filter's reason, `stale` or `surplus`. `by` names
    the filter, or is "batch".
    """

    ticket: Ticket
    values: Values
    seconds: float = 0.0
    refused: str | None = None
    by: str = "batch"

    def find(self, kind: type[T]) -> T | None:
        """Return the last value of a type that was made of it."""
        return next((v for v in reversed(self.values.values()) if isinstance(v, kind)), None)


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
        self._running: dict[int, tuple[asyncio.Task[None], Passed, float]] = {}
        self._ready: dict[int, Passed] = {}
        self._news, self._refusals, self._takes = asyncio.Event(), 0, False
        self._spent: defaultdict[str, float] = defaultdict(float)

    async def step(self) -> Values:
        """Gather a step's groups, run what stands behind `Batch`, and return what was made.

        A cancellation takes effect before a step or after it, never within.
        """
        taken = await self._take()
        values = await to_its_end(asyncio.create_task(self._learn(taken)))
        self._tickets.spend({passed.ticket.position for passed in taken})
        self.version += 1
        return values

    def drain_metrics(self) -> dict[str, float]:
        """Return each node's seconds, and how often it ran and refused, since the last call."""
        spent, self._spent = self._spent, defaultdict(float)
        return dict(sorted(spent.items()))

    async def cancel(self) -> None:
        """Cancel what is running and wait for its clean-up."""
        running = [task for task, *_ in self._running.values()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._running.clear()

    async def _learn(self, taken: Sequence[Passed]) -> Values:
        values: Values = {STEP: Step(self.version + 1)}
        for stage in self._plan.per_step:
            await self._stage(stage, values, [passed.values for passed in taken])
        return values

    async def _take(self) -> list[Passed]:
        batch, tickets, taken = self._plan.batch, self._tickets, list[Passed]()
        self._takes = True
        self._begin()
        while len(taken) < batch.n:
            self._news.clear()
            # In the order of their positions: what completes together is taken in that order.
            for ticket in sorted(passed.ticket for passed in self._ready.values()):
                if tickets.is_stale(ticket, self.version):
                    await self._refuse(self._ready.pop(ticket.position)._replace(refused="stale"))
                elif tickets.may_take(ticket, self.version):
                    tickets.take(ticket)
                    taken.append(self._ready.pop(ticket.position))
            if len(taken) < batch.n:
                await self._news.wait()
        self._takes = False
        if not batch.ahead:
            await self._drop_surplus()
        for passed in taken:
            await self._told(passed)
        return sorted(taken)

    async def _drop_surplus(self) -> None:
        """End what an on-policy step did not take."""
        now, rest = time.monotonic(), list(self._ready.values())
        rest += [p._replace(seconds=now - began) for _, p, began in self._running.values()]
        self._ready.clear()
        await self.cancel()
        for passed in sorted(rest):
            await self._told(passed._replace(refused="surplus"))
            self._tickets.give_back(passed.ticket)

    def _begin(self) -> None:
        while (ticket := self._tickets.begin(self.version)) is not None:
            self._start(ticket)

    def _start(self, ticket: Ticket) -> None:
        passed, began = Passed(ticket, {TICKET: ticket}), time.monotonic()
        task = self.tasks.create_task(self._prepare(passed, began))
        self._running[ticket.position] = (task, passed, began)

    async def _prepare(self, passed: Passed, began: float) -> None:
        """Run one group up to `Batch`."""
        by, refusal = "batch", None
        for stage in self._plan.per_group:
            if refused := await self._stage(stage, passed.values):
                by, refusal = next(iter(refused.items()))
                break
        del self._running[passed.ticket.position]
        passed = passed._replace(seconds=time.monotonic() - began, by=by)
        if refusal is not None:
            return await self._refuse(passed._replace(refused=refusal.reason), again=refusal.again)
        self._refusals = 0
        self._ready[passed.ticket.position] = passed
        self._news.set()

    async def _refuse(self, passed: Passed, *, again: bool = False) -> None:
        self._spent[f"flow/{passed.by}/refused"] += 1
        self._refusals += passed.by != "batch"
        await self._told(passed)
        if self._refusals > self._max:
            raise RunError(
                f"flow: {self._refusals} groups in a row were refused, the last by {passed.by!r} "
                f"({passed.refused}); loosen the filter, or raise flow.max_refusals={self._max}"
            )
        # On-policy, nothing begins once a step has its groups; this one's record took that long.
        begins = self._takes or self._plan.batch.ahead > 0
        if not again:
            self._tickets.refuse(passed.ticket)
        elif begins:
            self._start(self._tickets.again(passed.ticket, self.version))
        else:
            self._tickets.give_back(passed.ticket)
        if begins:
            self._begin()

    async def _stage(
        self, stage: Sequence[Node], values: Values, groups: Sequence[Values] = ()
    ) -> dict[str, Refuse]:
        """Run a stage's nodes at once; return what refused."""
        if len(stage) == 1:
            made = [await self._call(stage[0], values, groups)]
        else:
            made = await together(self._call(part, values, groups) for part in stage)
        refused = {
            part.name: m for part, m in zip(stage, made, strict=True) if isinstance(m, Refuse)
        }
        values.update(
            (part.name, m) for part, m in zip(stage, made, strict=True) if not part.is_filter
        )
        return refused

    async def _call(self, part: Node, values: Values, groups: Sequence[Values]) -> Any:
        began, sources = time.monotonic(), self._plan.sources[part.name]
        given = {
            name: [group[maker] for group in groups] if each else values[maker]
            for name, (maker, each) in sources.items()
        }
        result = part.fn(**given)
        if inspect.isawaitable(result):
            result = await result
        self._spent[f"timing_s/node/{part.name}"] += time.monotonic() - began
        if not groups:
            self._spent[f"flow/{part.name}/count"] += 1
        return result


async def together(work: Any) -> list[Any]:
    """Await all at once; the first to fail cancels the others, and is what is raised."""
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(part) for part in work]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in running]


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
        async with flow.tasks:
            try:
                yield flow
            finally:
                await flow.cancel()
    except BaseExceptionGroup as failed:
        raise failed.exceptions[-1] from None
