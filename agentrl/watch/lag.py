"""The event loop's lag: pinged from another thread, and blamed on what holds the loop meanwhile.

While a plugin computes or sleeps on the loop, nothing else runs: no time-out, no health check, no
other episode. The pings wait like everything else, and the frames of the loop's thread say for
whom.
"""

import asyncio
import sys
import threading
import time
from types import FrameType

import numpy as np

from agentrl.plugins.reference import is_plugin
from agentrl.waits import open_waits

_KEPT = 100_000
"""Lags between two readings of the metrics; further ones are not kept."""


class LoopLag:
    """Measures the running event loop. Made on the loop; `beat` is for another thread.

    Args:
        limit_s: a lag of more is told, with who caused it.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._sent: float | None = None
        self._ended: float | None = None
        self._culprit: str | None = None
        self._lags: list[float] = []
        self._times_held: dict[str, int] = {}

    @property
    def current_s(self) -> float:
        """How long the ping under way has been waiting."""
        sent = self._sent
        return 0.0 if sent is None or self._ended is not None else time.monotonic() - sent

    def beat(self) -> str | None:
        """Ping, or look after the last ping; return what is to be said, if anything is.

        A culprit is told when it lets go: the first time, and at doubled numbers of times.
        """
        if self._sent is None:
            self._sent = time.monotonic()
            self._loop.call_soon_threadsafe(self._answer)
            return None
        if self._ended is None:
            if self._culprit is None and self.current_s > self._limit_s:
                self._culprit = self._find_culprit()
            return None
        lag_s, culprit = self._ended - self._sent, self._culprit
        self._sent = self._ended = self._culprit = None
        if len(self._lags) < _KEPT:
            self._lags.append(lag_s)
        return self._told(lag_s, culprit) if lag_s > self._limit_s else None

    def metrics(self) -> dict[str, float]:
        """Return the lags since the last call, in seconds; nothing without a ping."""
        lags, self._lags = self._lags, []
        if self._sent is not None and (waits_s := self.current_s):
            lags.append(waits_s)
        if not lags:
            return {}
        p99, longest = np.quantile(lags, [0.99, 1.0])
        return {"perf/loop_lag_p99_s": float(p99), "perf/loop_lag_max_s": float(longest)}

    def held_by(self) -> str | None:
        """Who holds the loop at this moment; None while it answers in time."""
        return self._culprit if self._ended is None else None

    def _answer(self) -> None:
        self._ended = time.monotonic()

    def _told(self, lag_s: float, culprit: str | None) -> str | None:
        name = culprit or "something that let no other thread look (it held the GIL)"
        times = self._times_held[name] = self._times_held.get(name, 0) + 1
        if times & (times - 1):
            return None
        often = "" if times == 1 else f", the {times}th time"
        return (
            f"the event loop stood still for {lag_s:.1f} s{often}: held by {name}. Everything else "
            f"waited meanwhile: let it await, or run in a thread (asyncio.to_thread)"
        )

    def _find_culprit(self) -> str | None:
        """Name the innermost frame of a plugin, and the wait of the task that runs."""
        frames: list[FrameType] = []
        frame = sys._current_frames().get(self._thread)
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back
        plugin = next((f for f in frames if is_plugin(_module(f))), None)
        task = asyncio.current_task(self._loop)
        waits = [wait for wait in open_waits() if task is not None and wait.task is task]
        named = f"{waits[-1].resource}, " if waits else ""
        ours = next((f for f in frames if _module(f).partition(".")[0] == "agentrl"), None)
        blamed = plugin or (frames[0] if waits and frames else ours)
        return None if blamed is None else named + _place(blamed)


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
