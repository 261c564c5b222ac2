"""Which of several addresses takes the next request."""

import contextlib
import time
from collections.abc import Iterator, Sequence

EJECTED_S = 5.0


class Endpoint:
    """One address, how many requests it holds, and until when it counts as dead."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.ours = False
        self.load = 0
        self.dead_until = 0.0

    def eject(self) -> None:
        """Leave it out for a while."""
        self.dead_until = time.monotonic() + EJECTED_S


class Endpoints:
    """Chooses the least loaded living address; when all are dead, the first to come back."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.all = [Endpoint(url) for url in urls]

    @contextlib.contextmanager
    def take(self) -> Iterator[Endpoint]:
        """Hold an address for one request."""
        now = time.monotonic()
        alive = [endpoint for endpoint in self.all if endpoint.dead_until <= now]
        if alive:
            chosen = min(alive, key=lambda endpoint: endpoint.load)
        else:
            chosen = min(self.all, key=lambda endpoint: endpoint.dead_until)
        chosen.load += 1
        try:
            yield chosen
        finally:
            chosen.load -= 1
