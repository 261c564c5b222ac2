"""Which replica serves a session, and which are fit to serve at all.

Rendezvous hashing (Thaler and Ravishankar, 1998) keeps a session on one replica, where its earlier
turns are cached, and moves only the sessions of a replica that is lost.
"""

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from agentrl.engines.in_flight import InFlight

logger = logging.getLogger(__name__)


@dataclass(eq=False, kw_only=True, slots=True)
class Replica:
    """One server. It is healthy when it answers and has the current weights."""

    url: str
    healthy: bool = False
    trouble: str = "not asked yet"
    missed: int = 0
    """Health checks that failed, one after the other."""
    requests: InFlight = field(default_factory=InFlight)


class Replicas:
    """All replicas of one model."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.all = [Replica(url=url.rstrip("/")) for url in urls]
        self._changed = asyncio.Event()

    def up(self, replica: Replica) -> None:
        """Let a replica serve."""
        if not replica.healthy:
            logger.info("%s is in service", replica.url)
        replica.healthy, replica.missed = True, 0
        self._changed.set()

    def down(self, replica: Replica, why: str) -> None:
        """Take a replica out of service; its requests end, to be sent to another."""
        if replica.healthy:
            others = len(self.serving) - 1
            logger.warning("%s is out of service (%s); %d others serve", replica.url, why, others)
        replica.healthy, replica.trouble = False, why
        replica.requests.end()

    @property
    def serving(self) -> list[Replica]:
        """The replicas in service."""
        return [replica for replica in self.all if replica.healthy]

    async def choose(self, session: str) -> Replica:
        """Return the session's replica, waiting until there is one in service."""
        while not (serving := self.serving):
            self._changed.clear()
            await self._changed.wait()
        return max(serving, key=lambda replica: _weight(replica.url, session))

    def troubles(self) -> str:
        """Say what is wrong with those out of service."""
        return "; ".join(f"{r.url}: {r.trouble}" for r in self.all if not r.healthy)


def _weight(url: str, session: str) -> bytes:
    return hashlib.blake2b(f"{url}\0{session}".encode(), digest_size=8).digest()
