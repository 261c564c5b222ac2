"""What the kernel counted against this container: kills for memory, refused processes.

The files are where Docker (or our bubblewrap backend) mounts them, in either cgroup version.
Where there are none, the counts stay zero and statuses come from exit signals and messages.
"""

OOM_FILES = (
    "/sys/fs/cgroup/memory/memory.oom_control",
    "/sys/fs/cgroup/memory.events",
)
PIDS_FILES = ("/sys/fs/cgroup/pids/pids.events", "/sys/fs/cgroup/pids.events")


class Counters:
    """Keeps the files open: reading again is one system call each."""

    def __init__(self):
        self._oom = _open_first(OOM_FILES)
        self._pids = _open_first(PIDS_FILES)
        self.counts_forks = self._pids is not None

    def oom_kills(self):
        """Count processes killed because the container ran out of memory."""
        return _read(self._oom, b"oom_kill")

    def refused_forks(self):
        """Count forks refused by the container's process limit."""
        return _read(self._pids, b"max")


def _open_first(paths):
    for path in paths:
        try:
            return open(path, "rb", buffering=0)
        except OSError:
            continue
    return None


def _read(file, key):
    if file is None:
        return 0
    file.seek(0)
    for line in file.read().splitlines():
        name, _, value = line.partition(b" ")
        if name == key:
            return int(value)
    return 0
