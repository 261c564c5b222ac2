"""A slot: one user, one zygote, one work directory, and at most one program at a time."""

import math
import os

import zygote
from workdir import TEMPORARY, WORK, WorkDirectory

MEGABYTE = 1024 * 1024
OPEN_FILES = 512
LOCKED_BYTES = 65536
SHARED_FOLDERS = ("/dev/shm",)


class Slot:
    """Holds what executions of this slot need, and turns their steps into zygote orders."""

    def __init__(self, number, settings, loop, counters, system_calls):
        self.number, self.loop, self.counters = number, loop, counters
        self._settings = settings
        self.disk_bytes = settings["disk_mb"] * MEGABYTE
        root = os.path.join(settings["box"], str(number))
        work, temporary = os.path.join(root, WORK), os.path.join(root, TEMPORARY)
        environment = {
            "PATH": settings["path"],
            "HOME": work,
            "TMPDIR": temporary,
            "LANG": "C.UTF-8",
            **settings["environment"],
        }
        self.zygote = zygote.Handle(
            settings, number, work, environment, system_calls, self._constant_limits()
        )
        walled = settings["jail"] != "process"
        self.folder = WorkDirectory(
            settings["box"],
            number,
            self.zygote.jail,
            shared=SHARED_FOLDERS if walled else (),
            exclusive=walled and len(settings["uids"]) == 1,
        )
        self._forked_bytes = _address_space()
        self.session = None

    def order(self, step, request, source, session=False):
        """Return what the zygote is told: what to run, where, under which limits."""
        return {
            "argv": self._arguments(step, source),
            "source": source,
            "cwd": self.folder.work,
            "session": session,
            "limits": self._limits(step, request),
        }

    def _arguments(self, step, source):
        if step["argv"] is None:
            return None
        places = {"{file}": source, "{dir}": self.folder.code}
        return [_fill(word, places) for word in step["argv"]]

    def _limits(self, step, request):
        limits = {"CPU": math.ceil(step["timeout_s"]) + 1}
        if step["bounded"]:
            forked = self._forked_bytes if step["argv"] is None else 0
            limits["AS"] = forked + request["memory_mb"] * MEGABYTE
        return limits

    def _constant_limits(self):
        limits = {
            "FSIZE": self.disk_bytes,
            "NOFILE": OPEN_FILES,
            "CORE": 0,
            "MSGQUEUE": 0,
            "MEMLOCK": LOCKED_BYTES,
        }
        if self._settings["jail"] != "process":
            # Where the container counts refused forks, its limit is to be met first, not this one.
            counted = self.counters.counts_forks and len(self._settings["uids"]) == 1
            limits["NPROC"] = self._settings["processes"] + int(counted)
        return limits


def _fill(word, places):
    for mark, value in places.items():
        word = word.replace(mark, value)
    return word


def _address_space():
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 256 * MEGABYTE
