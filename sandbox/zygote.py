"""One slot's forker: a warm interpreter that becomes the program, again and again.

A zygote never sees a program's code, input or output (they stay in files and pipes that only its
children open), so nothing of one execution can be found in the memory of the next. It takes one
order at a time over its socket, announces the pid, waits, ends whatever the program left behind,
and reports.
"""

import contextlib
import ctypes  # noqa: F401 - loaded here so that no child pays for it
import json
import os
import signal
import socket
import sys
import traceback

import interpreter
import jail as jails
import kernel
import program

MESSAGE_BYTES = 256 * 1024


class Handle:
    """The supervisor's end of one zygote."""

    def __init__(self, settings, slot, folder, environment, system_calls, limits):
        self.jail = jails.make(settings["jail"], settings["uids"][slot])
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            os.environ.clear()
            os.environ.update(environment)
            interpreter.prepare(folder)
            _serve(theirs, self.jail, slot, system_calls, limits)
        theirs.close()
        self.socket = ours

    def order(self, step, fds):
        """Have a program started; its answers arrive on `socket`."""
        socket.send_fds(self.socket, [json.dumps(step).encode()], fds)

    def answer(self):
        """Read one answer: `{"pid"}` at the start, `{"status", ...}` at the end.

        Raises:
            EOFError: the zygote is gone.
        """
        data = self.socket.recv(MESSAGE_BYTES)
        if not data:
            raise EOFError("the slot's zygote has died")
        return json.loads(data)


def _serve(orders, jail, slot, system_calls, limits):
    """Fork programs until the supervisor closes the socket. Never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # gVisor of 2022 has no sub-reapers; there the container's first process adopts.
    with contextlib.suppress(OSError):
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    _keep_only(orders.fileno())
    jail.settle(slot, system_calls, limits)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    while True:
        data, fds, _, _ = socket.recv_fds(orders, MESSAGE_BYTES, 4)
        if not data:
            os._exit(0)
        pid = jail.fork()
        if pid == 0:
            _become(json.loads(data), fds, jail)
        for fd in fds:
            os.close(fd)
        orders.send(json.dumps({"pid": pid}).encode())
        status, cpu_s, peak_kib = jail.wait(pid)
        stragglers, more_cpu_s = jail.sweep()
        report = {
            "status": status,
            "cpu_s": cpu_s + more_cpu_s,
            "peak_kib": peak_kib,
            "stragglers": stragglers,
        }
        orders.send(json.dumps(report).encode())


def _keep_only(fd):
    os.closerange(3, fd)
    os.closerange(fd + 1, 1024)


def _become(step, fds, jail):
    try:
        program.become(step, fds, jail)
    except BaseException:  # the forked child must never return into the zygote's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(127)
