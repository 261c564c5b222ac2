"""Three ways to keep a program's processes apart from the fork server, and to end them all.

`uid`: the server is root with SETUID and SETGID, each slot's programs have a user of their own
(Docker; bubblewrap started by root). `namespace`: the server owns a user namespace and puts each
program into a fresh PID namespace (bubblewrap started by an ordinary user). `process`: the same
user, no walls, descendants found by adoption (`local`, unsafe).

A jail is used on both sides of the fork: `fork` and `sweep` by a slot's zygote, `kill` by the
supervisor as well.
"""

import contextlib
import os
import resource
import signal
import struct

import kernel

STATUS = struct.Struct("iddd")


FIRST_GUARD_UID = 61_000


class UidJail:
    """Programs run as a user of their own; ending a program is ending its user's processes.

    Signals pass when sender's and receiver's user ids meet, the real ones included. So whoever
    kills takes a real id that nobody else has (`guard`): it reaches the slot's processes, not the
    fork server's other ones, and the slot's processes cannot reach it.
    """

    def __init__(self, uid):
        self.uid = uid
        self.guard = FIRST_GUARD_UID

    def settle(self, number, system_calls, constant_limits):
        """Do once, in the zygote, what every program of the slot would else do for itself.

        The guard id becomes another than the supervisor's: both may be killing at once. The
        filter forbids nothing that the zygote needs, and root is exempt from NPROC.
        """
        self.guard = FIRST_GUARD_UID + 1 + number
        kernel.drop_inheritable_capabilities()
        os.setgroups([])
        os.setresgid(self.uid, self.uid, self.uid)
        set_limits(constant_limits)
        if system_calls is not None:
            system_calls.install()

    def fork(self):
        """Fork the program's process; returns its pid, or 0 in it."""
        return os.fork()

    def enter(self):
        """Become the slot's user, for good. Runs in the program's process."""
        os.setresuid(self.uid, self.uid, self.uid)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # /proc/self is ours again, as any program's is

    @contextlib.contextmanager
    def acting(self):
        """Touch files as the slot's user does. For the supervisor."""
        os.setegid(self.uid)
        os.setresuid(self.guard, self.uid, 0)
        try:
            yield
        finally:
            os.setresuid(0, 0, 0)
            os.setegid(0)

    def kill(self, pid):
        """Kill every process of the slot; atomic, so a fork bomb cannot outrun it."""
        self._signal(-1, signal.SIGKILL)

    def interrupt(self, pid):
        """Send the program Ctrl-C's signal."""
        self._signal(pid, signal.SIGINT)

    def _signal(self, pid, number):
        os.setresuid(self.guard, self.uid, 0)
        try:
            _signal(pid, number)
        finally:
            os.setresuid(0, 0, 0)

    def wait(self, pid):
        """Wait for the program's process; returns (wait status, cpu seconds, peak KiB)."""
        return _wait_for(pid)

    def sweep(self):
        """End and reap what the program left behind; returns its number and CPU seconds."""
        return _sweep(lambda: self.kill(0))


class NamespaceJail:
    """Programs run in a PID namespace of their own, which dies with its first process."""

    def __init__(self):
        self._own = None
        self._report = -1
        self._system_calls = None

    def settle(self, number, system_calls, constant_limits):
        """Keep the filter for the programs: it forbids the calls that make namespaces."""
        self._system_calls = system_calls
        set_limits(constant_limits)

    def fork(self):
        """Fork the namespace's first process, which forks the program; returns its pid, or 0."""
        if self._own is None:
            self._own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        # A namespace for children can be chosen once; going back to our own allows the next.
        kernel.setns(self._own, kernel.CLONE_NEWPID)
        kernel.unshare(kernel.CLONE_NEWPID)
        reader, writer = os.pipe()
        first = os.fork()
        if first:
            os.close(writer)
            self._report = reader
            return first
        os.close(reader)
        kernel.drop_capabilities()
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        program = os.fork()
        if program == 0:
            os.close(writer)
            kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
            return 0
        for fd in range(3):
            os.close(fd)
        os.write(writer, STATUS.pack(*_wait_for(program), 0))
        os._exit(0)

    def enter(self):
        """Filter system calls; capabilities went before the fork."""
        if self._system_calls is not None:
            self._system_calls.install()

    @contextlib.contextmanager
    def acting(self):
        """Nothing to change: the server is the same user."""
        yield

    def kill(self, pid):
        """Kill the namespace's first process, and with it every other."""
        _signal(pid, signal.SIGKILL)

    def interrupt(self, pid):
        """Send the program, the only child of the namespace's first process, SIGINT."""
        for child in _children(pid):
            _signal(child, signal.SIGINT)

    def wait(self, pid):
        """Wait for the namespace's end; returns the program's status as `_wait_for` does."""
        status, cpu_s, peak_kib = _wait_for(pid)
        with os.fdopen(self._report, "rb") as report:
            data = report.read(STATUS.size)
        if len(data) == STATUS.size:
            status, own_cpu_s, own_peak, _ = STATUS.unpack(data)
            return status, max(cpu_s, own_cpu_s), own_peak
        return status, cpu_s, peak_kib

    def sweep(self):
        """Nothing can be left: the kernel ended the namespace before `wait` returned."""
        return 0, 0.0


class ProcessJail:
    """No walls. Descendants are found because orphans are handed to the zygote."""

    def __init__(self):
        self.fork = os.fork

    def settle(self, number, system_calls, constant_limits):
        """Only limits: there are no walls to prepare."""
        set_limits(constant_limits)

    def enter(self):
        """Die with the zygote; nothing else to give up."""
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)

    @contextlib.contextmanager
    def acting(self):
        """Nothing to change: the server is the same user."""
        yield

    def kill(self, pid):
        """Kill the program's process group; the sweep finds the rest."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        _signal(pid, signal.SIGKILL)

    def interrupt(self, pid):
        """Send the program Ctrl-C's signal."""
        _signal(pid, signal.SIGINT)

    def wait(self, pid):
        """Wait for the program's process; returns (wait status, cpu seconds, peak KiB)."""
        return _wait_for(pid)

    def sweep(self):
        """Kill adopted descendants, generation by generation."""

        def kill_children():
            for child in _children(os.getpid()):
                _signal(child, signal.SIGKILL)

        return _sweep(kill_children)


def _wait_for(pid):
    """Reap every child until `pid` ends; orphans would else pile up as zombies."""
    cpu_s = 0.0
    while True:
        ended, status, usage = os.wait4(-1, 0)
        cpu_s += usage.ru_utime + usage.ru_stime
        if ended == pid:
            return status, cpu_s, float(usage.ru_maxrss)


def _sweep(kill):
    count, cpu_s = 0, 0.0
    while True:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                kill()
                pid, _, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return count, cpu_s
        count += 1
        cpu_s += usage.ru_utime + usage.ru_stime


def _signal(pid, number):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _children(parent):
    """List the processes whose parent is `parent`."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(name))
    return found


def set_limits(limits):
    """Set rlimits by name, as far as the hard ones of this process allow."""
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is None:
            continue
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        # Lowering is always allowed, except that gVisor refuses kinds it does not know (the number
        # of processes); there the container's own limit holds.
        with contextlib.suppress(ValueError):
            # The kernel signals at the soft CPU limit and kills at the hard one.
            resource.setrlimit(kind, (value, value + 1 if name == "CPU" else value))


def make(kind, uid):
    """Return the jail of one slot."""
    if kind == "uid":
        return UidJail(uid)
    return NamespaceJail() if kind == "namespace" else ProcessJail()
