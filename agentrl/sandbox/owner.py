"""Who started a sandbox: a process, told apart from a later one that got the same pid."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """A process id and its start time in clock ticks since boot."""

    pid: int
    start: int

    @classmethod
    def myself(cls) -> "Owner":
        """Return the running process."""
        return cls(pid=os.getpid(), start=_start_of(os.getpid()) or 0)

    def alive(self) -> bool:
        """Whether that very process still runs on this machine."""
        return _start_of(self.pid) == self.start


def _start_of(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
