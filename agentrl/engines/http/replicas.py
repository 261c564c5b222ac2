"""One server of several that serve one model, and what is under way on it."""

from agentrl.clients.endpoints import Endpoint
from agentrl.engines.in_flight import InFlight


class Replica(Endpoint):
    """A server. It is healthy when it answers and has the current weights."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.missed = 0
        """Health checks that failed, one after the other."""
        self.requests = InFlight()
