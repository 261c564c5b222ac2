"""The ticket rule: when a group may begin, and which step may take it.

A ticket is the right to have one group under way. It is spent when a step has learnt from the
group or a filter refused it; only then may another begin. `n * (ahead + 1)` tickets bound what
runs, how old it gets, and what a slow trainer piles up.

A step takes groups as they complete, as long as those that would be too old next time still find
a place in it: for every later step, no more tickets fall due by then than there are places.
"""

import math
from bisect import bisect_left, insort
from collections import Counter
from itertools import accumulate
from typing import NamedTuple, Protocol

from agentrl.flow.node import Batch


class FlowState(Protocol):
    """Where a run stands: `position` prompts were begun, `pending` of them not learnt from yet."""

    position: int
    pending: list[int]


class Ticket(NamedTuple):
    """One group's: the place of its prompt in the run, and the version it was begun at.

    `attempt` counts how often the prompt was sampled before, because a filter asked for it again.
    """

    position: int
    version: int
    attempt: int = 0


class Tickets:
    """The tickets of one run: those that are out. Unless `open`, no group begins."""

    def __init__(self, state: FlowState, batch: Batch) -> None:
        self.open = False
        self._state, self._batch = state, batch
        self.taken: set[Ticket] = set()
        self._out: list[int] = []  # positions, in their order
        self._ages: Counter[int] = Counter()  # of tickets that are out and not taken, by version
        self._next = [Ticket(position, 0) for position in sorted(state.pending)]
        # Rounded first: 100 * 1.1 is a little more than 110.
        self._limit = math.ceil(round(batch.n * batch.oversample, 6)) + batch.n * batch.ahead

    def begin(self, version: int) -> Ticket | None:
        """Hand out a ticket: for a prompt that is to be sampled anew, or the next one."""
        if not self.open or len(self._out) >= self._limit:
            return None
        if not self._next:
            self._next = [Ticket(self._state.position, 0)]
            self._state.pending.append(self._state.position)
            self._state.position += 1
        ticket = self._next.pop(0)._replace(version=version)
        insort(self._out, ticket.position)
        self._ages[version] += 1
        return ticket

    def take(self, ticket: Ticket) -> None:
        """Note that the step under way takes this one's group."""
        self.taken.add(ticket)
        self._ages[ticket.version] -= 1

    def close(self, ticket: Ticket, *, again: bool = False) -> None:
        """Take a ticket back; its prompt is done with, or is the next to be sampled `again`.

        While nothing may begin, it opens the next step instead, as if it had not been begun; where
        the first win, it is done with.
        """
        self._out.remove(ticket.position)
        self._ages[ticket.version] -= ticket not in self.taken
        self.taken.discard(ticket)
        if again and self.open:
            self._next.insert(0, ticket._replace(attempt=ticket.attempt + 1))
        elif again and not self._batch.first:
            self._next.append(Ticket(ticket.position, 0))
        elif ticket.position in self._state.pending:  # a node of the step may have removed it
            self._state.pending.remove(ticket.position)

    def is_stale(self, ticket: Ticket, version: int) -> bool:
        """Whether a group is too old for a step that updates weights of `version`."""
        return version - ticket.version > self._batch.ahead

    def may_take(self, ticket: Ticket, version: int) -> bool:
        """Whether the step that updates weights of `version` may take this one besides others."""
        n, ahead = self._batch.n, self._batch.ahead
        places = n - len(self.taken) - 1
        if places < 0 or self._batch.first:
            return places >= 0
        if not ahead:
            # Spares wait until one that was begun before them is refused.
            return bisect_left(self._out, ticket.position) < n
        ages = (version - ahead + later for later in range(ahead + 1))
        due = accumulate(self._ages[age] - (age == ticket.version) for age in ages)
        return all(num <= places + n * later for later, num in enumerate(due))
