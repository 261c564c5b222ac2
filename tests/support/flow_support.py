"""A small loop: numbers instead of groups, which complete when the test says."""

import asyncio
from dataclasses import dataclass, field

from agentrl.flow.graph import DataflowGraph
from agentrl.flow.node import Batch, Node, Step
from agentrl.flow.run import Passed
from agentrl.flow.tickets import Ticket


class Rolled(int):
    """What was rolled out: the position of its prompt."""


class Credit(list[int]):
    """What a step learns from."""


class Learnt(list[int]):
    """What a step has learnt from."""


@dataclass
class State:
    """Where the run stands."""

    position: int = 0
    pending: list[int] = field(default_factory=list)


class Loop:
    """Records what it was asked for."""

    def __init__(self) -> None:
        self.begun: list[Ticket] = []
        self.live: set[Ticket] = set()
        self.told: list[Passed] = []
        self.learnt: list[list[int]] = []
        self._done: dict[int, asyncio.Future[None]] = {}

    async def rollout(self, ticket: Ticket) -> Rolled:
        self.begun.append(ticket)
        self.live.add(ticket)
        self._done[ticket.position] = asyncio.get_running_loop().create_future()
        try:
            await self._done[ticket.position]
            return Rolled(ticket.position)
        finally:
            await asyncio.sleep(0)  # a clean-up that takes its time
            self.live.discard(ticket)

    def credit(self, groups: list[Rolled]) -> Credit:
        return Credit(groups)

    async def update(self, credit: Credit, step: Step) -> Learnt:
        self.learnt.append(list(credit))
        return Learnt([step, *credit])

    async def tell(self, passed: Passed) -> None:
        self.told.append(passed)

    def graph(self, batch: Batch) -> DataflowGraph:
        return DataflowGraph(Node(self.rollout) >> batch >> self.credit >> self.update)

    def finish(self, *positions: int) -> None:
        for position in positions:
            self._done[position].set_result(None)

    def fail(self, position: int, error: Exception) -> None:
        self._done[position].set_exception(error)

    @property
    def fates(self) -> list[tuple[int, str | None]]:
        return [(passed.ticket.position, passed.refused) for passed in self.told]


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
