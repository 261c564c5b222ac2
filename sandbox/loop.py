"""A small event loop: readable descriptors and timers, one thread, no surprises."""

import heapq
import itertools
import selectors
import time


class Timer:
    """A callback that is due at a moment, unless cancelled."""

    def __init__(self, callback):
        self.callback = callback

    def cancel(self):
        """Make it do nothing."""
        self.callback = None


class Loop:
    """Calls back when descriptors become readable and when moments have come."""

    def __init__(self):
        self._selector = selectors.DefaultSelector()
        self._timers = []
        self._order = itertools.count()
        self.stopped = False

    def watch(self, fd, callback):
        """Call `callback()` whenever `fd` is readable or at its end."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def unwatch(self, fd):
        """Forget `fd`."""
        self._selector.unregister(fd)

    def __contains__(self, fd):
        return fd in self._selector.get_map()

    def call_at(self, moment, callback):
        """Call `callback()` at a moment of the monotonic clock; returns its `Timer`."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (moment, next(self._order), timer))
        return timer

    def run(self):
        """Serve until `stopped` is set."""
        while not self.stopped:
            for key, _ in self._selector.select(self._until_next()):
                # A callback may have unwatched a descriptor of the same round.
                if key.fd in self:
                    key.data()
            self._fire()

    def _until_next(self):
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _fire(self):
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                timer.callback()
