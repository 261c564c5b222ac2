"""One program under way, as the supervisor sees it: its pipes, its deadline, its end."""

import fcntl
import os
import time

READ_BYTES = 65536
KILL_GRACE_S = 10.0


class Capture:
    """One output stream, kept up to a cap."""

    def __init__(self, loop, limit, overflowed):
        self._loop, self.limit, self._overflowed = loop, limit, overflowed
        self._fd, self.writer = os.pipe()
        fcntl.fcntl(self._fd, fcntl.F_SETFL, os.O_NONBLOCK)
        self.data = bytearray()
        self.truncated = False
        loop.watch(self._fd, self._read_once)

    def _read_once(self):
        """Take what is there; returns False at the end and when nothing is there."""
        try:
            piece = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return False
        if not piece:
            self.close()
            return False
        room = self.limit - len(self.data)
        self.data += piece[: max(room, 0)]
        if len(piece) > room and not self.truncated:
            self.truncated = True
            self._overflowed()
        return True

    def drain(self):
        """Take everything that was written until now, at most what a full pipe holds twice."""
        for _ in range(64):
            if self._fd < 0 or not self._read_once():
                return

    def take(self):
        """Return the stream so far and start it anew."""
        data, self.data = bytes(self.data), bytearray()
        truncated, self.truncated = self.truncated, False
        return data, truncated

    def close(self):
        """Stop reading."""
        if self._fd >= 0:
            self._loop.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1


class Process:
    """Started through the slot's zygote; `ended` is called once, with the zygote's report.

    The report gains `killed`: why the supervisor ended it (`timeout`, `output_limit`,
    `cancelled`), or None. A report of None means that the zygote is gone.
    """

    def __init__(self, loop, zygote, step, files, max_output_bytes, ended):
        self._loop, self._zygote, self._ended = loop, zygote, ended
        self.pid = None
        self.killed = None
        self._timer = None
        self._finished = False
        self.stdout = Capture(loop, max_output_bytes, self._overflowed)
        self.stderr = Capture(loop, max_output_bytes, self._overflowed)
        self.overflowed = lambda: self.kill("output_limit")
        loop.watch(zygote.socket.fileno(), self._on_answer)
        stdin, *control = files
        zygote.order(step, [stdin, self.stdout.writer, self.stderr.writer, *control])
        for fd in (*files, self.stdout.writer, self.stderr.writer):
            os.close(fd)
        self.started = time.monotonic()

    def _overflowed(self):
        self.overflowed()

    def end_at(self, moment, reason="timeout"):
        """Kill the program when the moment has come."""
        self._timer = self._loop.call_at(moment, lambda: self.kill(reason))

    def kill(self, reason):
        """End every process of the slot, and remember the first reason."""
        if self.killed is None:
            self.killed = reason
        if self._finished:
            return
        if self._timer is not None:
            self._timer.cancel()
        # A program that outlives SIGKILL by this long is stuck in the kernel: give the slot up.
        self._timer = self._loop.call_at(time.monotonic() + KILL_GRACE_S, lambda: self._end(None))
        if self.pid is not None:
            self._zygote.jail.kill(self.pid)

    def interrupt(self):
        """Send Ctrl-C's signal to the program itself."""
        if self.pid is not None:
            self._zygote.jail.interrupt(self.pid)

    def _on_answer(self):
        try:
            answer = self._zygote.answer()
        except (EOFError, OSError):
            self._end(None)
            return
        if "pid" in answer:
            self.pid = answer["pid"]
            if self.killed is not None:
                self._zygote.jail.kill(self.pid)
            return
        answer["duration_s"] = time.monotonic() - self.started
        self._end(answer)

    def _end(self, report):
        self._finished = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.unwatch(self._zygote.socket.fileno())
        for stream in (self.stdout, self.stderr):
            stream.drain()
            stream.close()
        if report is not None:
            report["killed"] = self.killed
        self._ended(report)
