"""Which of several addresses takes the next request: sticky by session, else the least loaded.

A session stays where its earlier requests went, as its prefix is cached there; a new one goes
where the fewest requests are under way. Addresses come and go while requests run.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from agentrl.errors import ConfigError

logger = logging.getLogger(__name__)

REMEMBERED_SESSIONS = 65_536


class Endpoint:
    """One address, how many requests it holds, and until when it is out of service."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.load = 0
        self.down_until = 0.0
        self.trouble = "not asked yet"

    @property
    def healthy(self) -> bool:
        """Whether it is in service."""
        return self.down_until <= time.monotonic()


E = TypeVar("E", bound=Endpoint)


class Endpoints(Generic[E]):
    """All addresses of one service."""

    def __init__(self, endpoints: Sequence[E]) -> None:
        self.all = list(endpoints)
        self._homes: OrderedDict[str, E] = OrderedDict()
        self._num_sessions: Counter[E] = Counter()
        self._changed = asyncio.Event()

    def find(self, url: str) -> E:
        """Return the endpoint of an address.

        Raises:
            ConfigError: there is none.
        """
        for endpoint in self.all:
            if endpoint.url == url.rstrip("/"):
                return endpoint
        known = ", ".join(endpoint.url for endpoint in self.all)
        raise ConfigError(f"{url}: expected one of the addresses in use ({known})")

    def add(self, endpoint: E) -> None:
        """Take in an address, out of service until it is `up`.

        Raises:
            ConfigError: it is in use already.
        """
        if any(other.url == endpoint.url for other in self.all):
            raise ConfigError(f"{endpoint.url} is in use already; remove it first")
        endpoint.down_until = math.inf
        self.all.append(endpoint)

    def remove(self, endpoint: E) -> None:
        """Give an address no further request; those under way go on."""
        self.all.remove(endpoint)
        endpoint.down_until, endpoint.trouble = math.inf, "removed"

    def up(self, endpoint: E) -> None:
        """Let an address serve, if it was not removed meanwhile."""
        if endpoint not in self.all:
            return
        if not endpoint.healthy:
            logger.info("%s is in service", endpoint.url)
        endpoint.down_until = 0.0
        self._changed.set()

    def down(self, endpoint: E, why: str, *, for_s: float = math.inf) -> None:
        """Take an address out of service, for a while or until it is `up`."""
        if endpoint.healthy:
            others = len(self.serving) - 1
            logger.warning("%s is out of service (%s); %d others serve", endpoint.url, why, others)
        endpoint.down_until, endpoint.trouble = time.monotonic() + for_s, why

    @property
    def serving(self) -> list[E]:
        """Those in service."""
        return [endpoint for endpoint in self.all if endpoint.healthy]

    async def choose(self, session: str) -> E:
        """Return the session's address, waiting until one is in service."""
        while not self.serving:
            self._changed.clear()
            await self._changed.wait()
        home = self._homes.get(session)
        if home is not None and home.healthy:
            self._homes.move_to_end(session)
            return home
        self._forget(session)
        home = min(self.serving, key=lambda one: (one.load, self._num_sessions[one]))
        self._homes[session] = home
        self._num_sessions[home] += 1
        if len(self._homes) > REMEMBERED_SESSIONS:
            self._forget(next(iter(self._homes)))
        return home

    def nearest(self) -> E:
        """Return the least loaded address; when none is in service, the first to come back."""
        if serving := self.serving:
            return min(serving, key=lambda endpoint: endpoint.load)
        return min(self.all, key=lambda endpoint: endpoint.down_until)

    @contextlib.contextmanager
    def hold(self, endpoint: E) -> Iterator[E]:
        """Count one request of an endpoint."""
        endpoint.load += 1
        try:
            yield endpoint
        finally:
            endpoint.load -= 1

    def troubles(self) -> str:
        """Say what is wrong with those out of service."""
        return "; ".join(f"{one.url}: {one.trouble}" for one in self.all if not one.healthy)

    def _forget(self, session: str) -> None:
        home = self._homes.pop(session, None)
        if home is None:
            return
        self._num_sessions[home] -= 1
        if not self._num_sessions[home]:
            del self._num_sessions[home]
