"""Places: so many at once, the rest in a line, each a wait with a name and a deadline."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentrl.errors import InfraError
from agentrl.waits import waiting


class Places:
    """Lets `count` holders in at a time, in the order of their coming.

    Args:
        count: holders at once.
        resource: what a place is called in messages.
        remedy: what a person can do when none is given back.
        held_s: seconds within which every holder gives its place back. Whoever waits gives up when
            no place has moved for so long: however long the line, it moves.
    """

    def __init__(self, count: int, resource: str, *, remedy: str, held_s: float) -> None:
        self._free = count
        self._resource, self._remedy, self._held_s = resource, remedy, held_s
        self._line: deque[asyncio.Future[None]] = deque()
        self._moved_s = time.monotonic()

    @asynccontextmanager
    async def place(self, waiter: str) -> AsyncIterator[None]:
        """Hold a place; `waiter` names who waits for it.

        Raises:
            InfraError: no holder gave its place back for `held_s` seconds.
        """
        if self._free > 0:
            self._free -= 1
            self._moved_s = time.monotonic()
        else:
            await self._wait(waiter)
        try:
            yield
        finally:
            self._give()

    async def _wait(self, waiter: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        wait = waiting(self._resource, waiter, remedy=self._remedy, deadline_s=self._held_s)
        try:
            with wait:
                while not turn.done():
                    left_s = self._moved_s + self._held_s - time.monotonic()
                    if left_s <= 0:
                        raise InfraError(
                            f"{self._resource}: {waiter} waited for {wait.age_s:.3g} s, and none "
                            f"was given back for {self._held_s:g} s; {self._remedy}"
                        )
                    wait.deadline_s = round(wait.age_s + left_s, 1)
                    # Unlike awaiting it, this leaves the turn in the line when it takes longer.
                    await asyncio.wait([turn], timeout=left_s)
        except BaseException:
            if turn.done():  # handed over in the instant of the cancellation: pass it on
                self._give()
            else:
                self._line.remove(turn)
            raise

    def _give(self) -> None:
        self._moved_s = time.monotonic()
        if self._line:
            self._line.popleft().set_result(None)
        else:
            self._free += 1
