"""A stateful session: one interpreter that stays in its slot and runs cell after cell.

Time-outs and interrupts are SIGINT first, so that the state survives; a cell that ignores it is
killed with its session.
"""

import errno
import os
import socket
import struct
import time

import verdict
import workdir
from process import Process

LENGTH = struct.Struct(">I")
INTERRUPT_GRACE_S = 1.0
CPU_S = 24 * 3600
STEP = {"name": "session", "argv": None, "bounded": True, "timeout_s": CPU_S}


class Session:
    """The supervisor's side of one notebook."""

    def __init__(self, slot, request, idle_s, ended):
        self._slot, self._idle_s, self._ended = slot, idle_s, ended
        ours, theirs = socket.socketpair()
        self._control = ours
        self._cell = None
        self._on_closed = None
        order = slot.order(STEP, request, None, session=True)
        files = [os.open(os.devnull, os.O_RDONLY), theirs.detach()]
        self._process = Process(slot.loop, slot.zygote, order, files, 0, self._process_ended)
        self._process.overflowed = lambda: self._stop_cell("output_limit")
        slot.loop.watch(ours.fileno(), self._on_control)
        self._rest()

    def run(self, request, blobs, finished):
        """Run one cell; `finished(outcome, contents)` is called at its end."""
        code, *contents = blobs
        cell = Cell(self._slot, request, finished)
        if self._cell is not None:
            cell.fail("refused", "the session is still running another cell")
            return
        reason = cell.place(contents)
        if reason is not None:
            cell.fail("refused", reason)
            return
        self._timer.cancel()
        self._cell = cell
        for stream in (self._process.stdout, self._process.stderr):
            stream.take()  # what threads wrote between the cells belongs to none
            stream.limit = request["max_output_bytes"]
        self._control.sendall(LENGTH.pack(len(code)) + code)
        deadline = time.monotonic() + request["timeout_s"]
        self._timer = self._slot.loop.call_at(deadline, lambda: self._stop_cell("timeout"))

    def interrupt(self):
        """Interrupt the running cell, if any."""
        if self._cell is not None:
            self._process.interrupt()

    def close(self, closed):
        """End the interpreter; `closed()` is called when nothing of it is left."""
        self._on_closed = closed
        self._process.kill("cancelled")

    def _rest(self):
        """Wait for the next cell, but not for ever."""
        moment = time.monotonic() + self._idle_s
        self._timer = self._slot.loop.call_at(moment, lambda: self._process.kill("cancelled"))

    def _stop_cell(self, reason):
        if self._cell is None or self._cell.stopped is not None:
            return
        self._cell.stopped = reason
        self._process.interrupt()
        self._timer.cancel()
        moment = time.monotonic() + INTERRUPT_GRACE_S
        self._timer = self._slot.loop.call_at(moment, lambda: self._process.kill(reason))

    def _on_control(self):
        answer = self._control.recv(1)
        if not answer:
            self._slot.loop.unwatch(self._control.fileno())
            return
        cell = self._cell
        if cell is None:
            return
        self._timer.cancel()
        self._cell = None
        for stream in (self._process.stdout, self._process.stderr):
            stream.drain()
        failed = answer != b"0"
        report = {"status": 256 if failed else 0, "killed": cell.stopped, "out_of_cpu": False}
        cell.finish(report, self._process)
        self._rest()

    def _process_ended(self, report):
        self._timer.cancel()
        if self._control.fileno() in self._slot.loop:
            self._slot.loop.unwatch(self._control.fileno())
        self._control.close()
        cell, self._cell = self._cell, None
        if cell is not None and report is None:
            cell.fail("sandbox_error", "the slot's fork server died")
        elif cell is not None:
            report["killed"] = cell.stopped or report["killed"]
            report["out_of_cpu"] = False
            cell.finish(report, self._process)
        self._ended(report is None)
        if self._on_closed is not None:
            self._on_closed()


class Cell:
    """One cell on its way: its files, what was counted before it, and its answer."""

    def __init__(self, slot, request, finished):
        self._slot, self._request, self._finished = slot, request, finished
        self._evidence = verdict.Evidence(slot.counters)
        self._started = time.monotonic()
        self.stopped = None

    def place(self, contents):
        """Write the cell's files; returns why not, or None."""
        try:
            for name, content in zip(self._request["files"], contents, strict=True):
                self._slot.folder.put(name, content)
            for name in self._request["fetch"]:
                workdir.check_relative(name)
        except workdir.RefusedPathError as error:
            return str(error)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EFBIG)
            return "no room for the files" if full else f"{error.filename}: {error.strerror}"
        return None

    def finish(self, report, process):
        """Answer with the cell's status and output."""
        (stdout, out_cut), (stderr, err_cut) = process.stdout.take(), process.stderr.take()
        status = self._evidence.status(report, stderr, self._slot.folder.full(), False)
        code, number = verdict.split(report["status"])
        names, contents = self._slot.folder.fetch_all(self._request["fetch"], self._slot.disk_bytes)
        cut = {"stdout": out_cut, "stderr": err_cut}
        self._answer(
            {"status": status, "exit_code": code, "signal": number, "files": names},
            [name for name, was_cut in cut.items() if was_cut],
            [stdout, stderr, *contents],
        )

    def fail(self, status, reason):
        """Answer that the cell did not run."""
        self._answer({"status": status, "reason": reason, "files": []}, [], [b"", b""])

    def _answer(self, outcome, truncated, blobs):
        spent = {"duration_s": time.monotonic() - self._started, "cpu_s": 0.0, "peak_kib": 0.0}
        self._finished({**outcome, **spent, "truncated": truncated}, blobs)
