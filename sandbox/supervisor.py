"""The fork server's first process: reads request frames, runs them in slots, answers.

Started by every backend in the same way: `python supervisor.py SETTINGS`, with the frames on
standard input and output and SETTINGS a JSON object that the host's pool makes. It ends when its
input ends, so nothing outlives the process that asked for it.
"""

import contextlib
import gc
import importlib
import json
import os
import platform
import resource
import shutil
import signal
import sys
import time

import frames
import kernel
import seccomp
from cgroups import Counters
from execution import Execution
from loop import Loop
from session import Session
from slot import Slot

READ_BYTES = 1 << 20
SESSION_GONE = "the session has ended: closed, idle for too long, or killed with its last cell"


class Supervisor:
    """Owns the slots, and the two descriptors that lead to the host."""

    def __init__(self, settings, input_fd, output_fd):
        self._settings = settings
        self._input_fd, self._output_fd = input_fd, output_fd
        self._loop = Loop()
        self._decoder = frames.Decoder()
        system_calls = seccomp.Filter(seccomp.default_profile()) if settings["seccomp"] else None
        counters = Counters()
        self._slots = [
            Slot(number, settings, self._loop, counters, system_calls)
            for number in range(len(settings["uids"]))
        ]
        self._running = {}

    def serve(self):
        """Answer frames until the input ends, or the container is too old."""
        self._send({"op": "ready", **self._description()})
        self._loop.watch(self._input_fd, self._on_input)
        self._loop.call_at(time.monotonic() + self._settings["expire_s"], self._stop)
        self._loop.run()

    def _description(self):
        commands = self._settings["commands"]
        return {
            "python": platform.python_version(),
            "missing": [name for name in commands if shutil.which(name) is None],
            "preloaded": [name for name in self._settings["preload"] if name in sys.modules],
        }

    def _stop(self):
        self._loop.stopped = True

    def _send(self, header, blobs=()):
        frames.write_all(self._output_fd, frames.encode(header, blobs))

    def _on_input(self):
        data = os.read(self._input_fd, READ_BYTES)
        if not data:
            self._stop()
            return
        for header, blobs in self._decoder.feed(data):
            getattr(self, "_do_" + header["op"])(header, blobs)

    def _do_ping(self, header, blobs):
        self._send({"op": "result", "id": header["id"], "status": "ok"})

    def _do_run(self, header, blobs):
        slot = self._slots[header["slot"]]

        def finished(outcome, contents):
            self._running.pop(header["id"], None)
            self._send({"op": "result", "id": header["id"], **outcome}, contents)
            if outcome["status"] == "sandbox_error" or not slot.folder.clear():
                self._give_up(f"slot {slot.number} could not be made clean")

        execution = Execution(slot, header, blobs, finished)
        self._running[header["id"]] = execution
        execution.start()

    def _do_cancel(self, header, blobs):
        execution = self._running.get(header["id"])
        if execution is not None:
            execution.cancel()

    def _do_open_session(self, header, blobs):
        slot = self._slots[header["slot"]]

        def ended(broken):
            slot.session = None
            self._send({"op": "session_ended", "slot": slot.number})
            if broken or not slot.folder.clear():
                self._give_up(f"slot {slot.number} could not be made clean")

        slot.session = Session(slot, header, self._settings["session_idle_s"], ended)
        self._send({"op": "result", "id": header["id"], "status": "ok"})

    def _do_cell(self, header, blobs):
        def finished(outcome, contents):
            self._send({"op": "result", "id": header["id"], **outcome}, contents)

        session = self._slots[header["slot"]].session
        if session is None:
            finished({"status": "refused", "reason": SESSION_GONE}, ())
        else:
            session.run(header, blobs, finished)

    def _do_interrupt(self, header, blobs):
        session = self._slots[header["slot"]].session
        if session is not None:
            session.interrupt()

    def _do_close_session(self, header, blobs):
        def closed():
            self._send({"op": "result", "id": header["id"], "status": "ok"})

        session = self._slots[header["slot"]].session
        closed() if session is None else session.close(closed)

    def _give_up(self, reason):
        """Tell the host that this container is to be replaced."""
        self._send({"op": "broken", "reason": reason})


def _private_descriptors():
    """Move the host's pipes away from 0 and 1, where a stray print would reach them."""
    input_fd, output_fd = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    return input_fd, output_fd


def _preload(names):
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            sys.exit(f"preload {name!r}: {error}; install it in the sandbox image")


def main():
    """Serve one host until it closes our input."""
    settings = json.loads(sys.argv[1])
    del sys.argv[1:]
    input_fd, output_fd = _private_descriptors()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        # As process 1 the default means that nothing inside the container can end the server.
        signal.signal(number, signal.SIG_IGN if number == signal.SIGPIPE else signal.SIG_DFL)
    with contextlib.suppress(OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.update(settings["environment"])  # thread counts are read when a module is imported
    _preload(settings["preload"])
    gc.collect()
    gc.freeze()
    supervisor = Supervisor(settings, input_fd, output_fd)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    supervisor.serve()


if __name__ == "__main__":
    main()
