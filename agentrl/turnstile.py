"""Beginning in slices: a crowd that comes at once is let in a few at a time.

All that is ready runs in one turn of the event loop, and a thousand beginnings in one turn keep
time-outs, health checks and everybody's answers waiting. What is let in slowly ends slowly, too.
"""

import asyncio
from collections import deque

_AT_ONCE = 4


class Turnstile:
    """Lets `at_once` callers pass in one turn of the event loop, in the order of their coming."""

    def __init__(self, at_once: int = _AT_ONCE) -> None:
        self._at_once = at_once
        self._left = at_once
        self._queue: deque[asyncio.Future[None]] = deque()
        self._turning = False

    async def enter(self) -> None:
        """Wait for one's turn; whoever comes alone does not wait."""
        loop = asyncio.get_running_loop()
        if not self._turning:
            self._turning, self._left = True, self._at_once
            loop.call_soon(self._turn, loop)
        if self._left > 0 and not self._queue:
            self._left -= 1
            return
        future = loop.create_future()
        self._queue.append(future)
        await future

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._left = self._at_once
        while self._queue and self._left > 0:
            future = self._queue.popleft()
            if not future.done():  # else it was cancelled
                future.set_result(None)
                self._left -= 1
        self._turning = bool(self._queue)
        if self._turning:
            loop.call_soon(self._turn, loop)
