"""The sessions that clients of the service hold, by their secret ids."""

import secrets

from agentrl.contracts.sandbox import Sandbox, Session
from agentrl.sandbox.wire import OpenBody


class Sessions:
    """A table of open sessions. Abandoned ones end by themselves (`sandbox.session_idle_s`)."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._open: dict[str, Session] = {}

    async def open(self, body: OpenBody) -> str:
        """Open a session; returns its id."""
        session = await self._sandbox.open_session(memory_mb=body.memory_mb, owner=body.owner)
        name = secrets.token_urlsafe(16)
        self._open[name] = session
        return name

    def find(self, name: str) -> Session | None:
        """Return a session by its id."""
        return self._open.get(name)

    async def close_one(self, name: str) -> None:
        """Close a session; an unknown id is already closed."""
        session = self._open.pop(name, None)
        if session is not None:
            await session.close()

    async def close(self) -> None:
        """Close all of them."""
        for name in list(self._open):
            await self.close_one(name)
