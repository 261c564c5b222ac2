"""The watch: a thread that goes on while the event loop does not.

    every beat: long waits and held loops -> the log and the screen; now and then status.json

It only looks and tells. What ends a wait is the wait's own deadline.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from agentrl.config.watch import WatchConfig
from agentrl.errors import RolloutError, boundary
from agentrl.runs.run import Run
from agentrl.waits import open_waits
from agentrl.watch.following import FollowingReporter
from agentrl.watch.lag import LoopLag
from agentrl.watch.status import SHOWN, Status, WaitStatus
from agentrl.watch.telling import tell

logger = logging.getLogger(__name__)

BEAT_S = 0.1
LOOKS = 12
"""Looks for long waits within one `tell_after_s`."""


class Watch:
    """Watches the process while its `with` block runs on the event loop.

    Args:
        config: when to tell.
        say: shows one line to whoever watches; called in the watch's own thread.
        folder: where `status.json` is written; nowhere if None.
        progress: returns the phase under way and the steps done.
    """

    def __init__(
        self,
        config: WatchConfig,
        say: Callable[[str], None],
        *,
        folder: Path | None = None,
        progress: Callable[[], tuple[str, int]] = lambda: ("", 0),
    ) -> None:
        self._config = config
        self._say = say
        self._folder = folder
        self._progress = progress
        self._stop = threading.Event()
        self._lag: LoopLag | None = None
        self._thread: threading.Thread | None = None
        self._writes = True

    def __enter__(self) -> Self:
        """Begin to watch the running event loop."""
        self._lag = LoopLag(self._config.lag_s)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Write the last status, and end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(self._config.status_every_s)

    def metrics(self) -> dict[str, float]:
        """Return the event loop's lag since the last call."""
        return self._lag.metrics() if self._lag is not None else {}

    def _run(self) -> None:
        assert self._lag is not None
        looked = written = -float("inf")
        phase = None
        while not self._stop.wait(BEAT_S):
            now = time.monotonic()
            if line := self._lag.beat():
                self._tell(line)
            if now - looked >= self._config.tell_after_s / LOOKS:
                looked = now
                for line in tell(open_waits(), self._config.tell_after_s):
                    self._tell(line)
            before, (phase, _) = phase, self._progress()
            if phase != before or now - written >= self._config.status_every_s:
                written = now
                self._write_status()
        self._write_status()

    def _tell(self, line: str) -> None:
        logger.info("%s", line)
        try:
            with boundary("the reporter's note"):
                self._say(line)
        except RolloutError as error:
            logger.warning("%s", error)

    def _write_status(self) -> None:
        if self._folder is None:
            return
        waits = open_waits()
        phase, step = self._progress()
        status = Status(
            pid=os.getpid(),
            time=time.time(),
            phase=phase,
            step=step,
            num_waits=len(waits),
            waits=tuple(WaitStatus.of(wait) for wait in waits[:SHOWN]),
            loop_held_by=self._lag.held_by() if self._lag is not None else None,
        )
        try:
            status.write(self._folder)
            self._writes = True
        except OSError as error:
            if self._writes:  # once: a full disk stays full for a while
                self._tell(f"status of {self._folder} cannot be written ({error}); free the disk")
            self._writes = False


def watch_run(config: WatchConfig, run: Run) -> Watch:
    """Return the watch of a run; begin it before anything of the run opens, which can be long."""
    run.reporter = following = FollowingReporter(run.reporter)
    return Watch(
        config,
        following.note,
        folder=run.folder.path,
        progress=lambda: (following.phase, run.progress.step),
    )
