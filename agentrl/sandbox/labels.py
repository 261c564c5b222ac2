"""Labels that say whose a container is, and the removal of those nobody owns any more.

An owner is a process of one machine. Containers of another machine's owners on a shared daemon are
left alone until they expire, because from here nobody can tell whether their owner lives.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

MARK = "agentrl.sandbox"
HOST, PID, START, EXPIRES = (f"{MARK}.{name}" for name in ("host", "pid", "start", "expires"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """A process that started sandboxes: its id, and its start in clock ticks since boot.

    The start tells it from a later process that got the same id.
    """

    pid: int
    start: int

    @classmethod
    def myself(cls) -> "Owner":
        """Return the running process."""
        return cls(pid=os.getpid(), start=_start_of(os.getpid()) or 0)

    def alive(self) -> bool:
        """Whether that very process still runs on this machine."""
        return _start_of(self.pid) == self.start


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """What a container says about its owner. `expires_at` is in seconds since the epoch."""

    owner: Owner
    expires_at: float
    host: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the labels as Docker keeps them."""
        return {
            MARK: "1",
            HOST: self.host or socket.gethostname(),
            PID: str(self.owner.pid),
            START: str(self.owner.start),
            EXPIRES: str(int(self.expires_at)),
        }

    @classmethod
    def from_dict(cls, labels: Mapping[str, str]) -> "Labels":
        """Read labels back; missing ones count as expired."""
        return cls(
            owner=Owner(pid=int(labels.get(PID, 0)), start=int(labels.get(START, 0))),
            expires_at=float(labels.get(EXPIRES, 0)),
            host=labels.get(HOST, ""),
        )

    def abandoned(self) -> bool:
        """Whether the container has no owner any more."""
        if time.time() > self.expires_at:
            return True
        return self.host == socket.gethostname() and not self.owner.alive()


def reap(client: Any, *, everything: bool = False) -> list[str]:
    """Remove abandoned containers (or all of ours); returns their ids."""
    import docker.errors

    removed = []
    for container in client.api.containers(all=True, filters={"label": MARK}):
        if not everything and not Labels.from_dict(container["Labels"]).abandoned():
            continue
        try:
            client.api.remove_container(container["Id"], force=True, v=True)
        except docker.errors.APIError as error:
            logger.debug("container %s: %s", container["Id"][:12], error)
            continue
        removed.append(container["Id"][:12])
    return removed


def _start_of(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
