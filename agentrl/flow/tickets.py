"""The ticket rule: when a group may begin, and which step may take it.

A ticket is the right to have one group under way. It is spent when a step has learnt from the
group or a filter refused it; only then may another begin. `n * (ahead + 1)` tickets bound what
runs, how old it gets, and what a slow trainer piles up.

A step takes groups as they complete, as long as those that would be too old next time still find
a place in it: for every later step, no more tickets fall due by then than there are places.
"""

import math
from collections import Counter
from collections.abc import Collection
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
    """The tickets of one run. `live` are those out, by position, and not taken by a step."""

    def __init__(self, state: FlowState, batch: Batch) -> None:
        self.live: dict[int, Ticket] = {}
        self._state, self._batch = state, batch
        self._taken: set[int] = set()
        self._again = sorted(state.pending)
        # Rounded first: 100 * 1.1 is a little more than 110.
        begun = math.ceil(round(batch.n * batch.oversample, 6))
        self._limit = begun + batch.n * batch.ahead

    def begin(self, version: int) -> Ticket | None:
        """Hand out a ticket: for a prompt that an interruption left, or the next one."""
        if len(self.live) + len(self._taken) >= self._limit:
            return None
        if self._again:
            position = self._again.pop(0)
        else:
            position = self._state.position
            self._state.position += 1
            self._state.pending.append(position)
        return self._out(Ticket(position, version))

    def again(self, ticket: Ticket, version: int) -> Ticket:
        """Hand out a ticket for the same prompt."""
        return self._out(Ticket(ticket.position, version, ticket.attempt + 1))

    def refuse(self, ticket: Ticket) -> None:
        """Take a ticket back; its prompt is done with."""
        del self.live[ticket.position]
        self._state.pending.remove(ticket.position)

    def give_back(self, ticket: Ticket) -> None:
        """Take a spare's ticket back; unless the first win, its prompt opens the next step."""
        if self._batch.first:
            return self.refuse(ticket)
        del self.live[ticket.position]
        self._again.append(ticket.position)

    def is_stale(self, ticket: Ticket, version: int) -> bool:
        """Whether a group is too old for a step that updates weights of `version`."""
        return version - ticket.version > self._batch.ahead

    def may_take(self, ticket: Ticket, version: int) -> bool:
        """Whether the step that updates weights of `version` may take this group now."""
        batch = self._batch
        places = batch.n - len(self._taken) - 1
        if places < 0 or batch.first:
            return places >= 0
        if not batch.ahead:
            # Spares wait until one that was begun before them is refused.
            before = [p for p in (*self.live, *self._taken) if p < ticket.position]
            return len(before) < batch.n
        left = Counter(t.version for t in self.live.values())
        left[ticket.version] -= 1
        due = 0
        for later in range(batch.ahead + 1):
            due += left[version - batch.ahead + later]
            if due - batch.n * later > places:
                return False
        return True

    def take(self, ticket: Ticket) -> None:
        """Note that a step has taken this group."""
        del self.live[ticket.position]
        self._taken.add(ticket.position)

    def spend(self, positions: Collection[int]) -> None:
        """Take the tickets of a step back that has learnt from its groups."""
        self._taken.difference_update(positions)
        self._state.pending[:] = [p for p in self._state.pending if p not in positions]

    def _out(self, ticket: Ticket) -> Ticket:
        self.live[ticket.position] = ticket
        return ticket
