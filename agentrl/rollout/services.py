"""What a run lends to its tools and tasks: one sandbox, started when first asked for."""

import asyncio

from agentrl.config.sandbox import SandboxConfig
from agentrl.contracts.sandbox import RunRequest, RunResult, Sandbox, Session
from agentrl.sandbox import open_sandbox


class CountingSandbox(Sandbox):
    """Passes everything on and counts the programs that ran."""

    def __init__(self, inner: Sandbox) -> None:
        self.name = inner.name
        self.executions = 0
        self._inner = inner

    async def start(self) -> None:
        """Start the sandbox."""
        await self._inner.start()

    async def run(self, request: RunRequest) -> RunResult:
        """Run one program and count it."""
        result = await self._inner.run(request)
        self.executions += 1
        return result

    async def open_session(self, *, memory_mb: int = 256, owner: str = "") -> Session:
        """Open a session; its cells are not counted."""
        return await self._inner.open_session(memory_mb=memory_mb, owner=owner)

    async def close(self) -> None:
        """Close the sandbox."""
        await self._inner.close()

    def isolation(self) -> str:
        """Say which isolation is in force."""
        return self._inner.isolation()


class RunServices:
    """The services of one run."""

    def __init__(self, sandbox: SandboxConfig) -> None:
        self._config = sandbox
        self._sandbox: CountingSandbox | None = None
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
                sandbox = CountingSandbox(open_sandbox(self._config))
                await sandbox.start()
                self._sandbox = sandbox
            return self._sandbox

    async def close(self) -> None:
        """Close what was started. May be called twice."""
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            self._executions_before += sandbox.executions
            await sandbox.close()
