"""What a run lends to its tools and tasks: one sandbox, started when first asked for."""

import asyncio
from contextlib import AsyncExitStack

from agentrl.config.sandbox import SandboxConfig
from agentrl.contracts.sandbox import Sandbox
from agentrl.sandbox import open_sandbox


class RunServices:
    """The services of one run."""

    def __init__(self, sandbox: SandboxConfig) -> None:
        self._config = sandbox
        self._sandbox: Sandbox | None = None
        self._stack = AsyncExitStack()
        self._lock = asyncio.Lock()
        self._executions_before = 0

    @property
    def executions(self) -> int:
        """Programs that ran in the sandbox so far; closing keeps the count."""
        return self._executions_before + (self._sandbox.executions if self._sandbox else 0)

    @property
    def isolation(self) -> str | None:
        """The isolation in force; None while no sandbox was asked for."""
        return self._sandbox.isolation() if self._sandbox else None

    async def sandbox(self) -> Sandbox:
        """Return the run's sandbox, starting it at the first call.

        Raises:
            NotReadyError: there is none to be had, with the remedy.
        """
        async with self._lock:
            if self._sandbox is None:
                self._sandbox = await self._stack.enter_async_context(open_sandbox(self._config))
            return self._sandbox

    async def close(self) -> None:
        """Close what was started. May be called twice."""
        self._executions_before, self._sandbox = self.executions, None
        await self._stack.aclose()
