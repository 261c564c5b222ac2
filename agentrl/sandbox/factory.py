"""From configuration to a sandbox; `auto` is decided here, and never in favour of no walls."""

import logging

from agentrl.config.sandbox import (
    AutoSandboxConfig,
    BubblewrapSandboxConfig,
    DockerSandboxConfig,
    HttpSandboxConfig,
    LocalSandboxConfig,
    PoolConfig,
    SandboxConfig,
)
from agentrl.contracts.sandbox import RunRequest, RunResult, Sandbox, Session
from agentrl.errors import NotReadyError
from agentrl.sandbox.guest import Spawner
from agentrl.sandbox.pool import Pool

logger = logging.getLogger(__name__)


def open_sandbox(config: SandboxConfig) -> Sandbox:
    """Return the sandbox that `config` describes, not started yet."""
    if isinstance(config, HttpSandboxConfig):
        from agentrl.sandbox.http import HttpSandbox

        return HttpSandbox(config)
    if isinstance(config, AutoSandboxConfig):
        return AutoSandbox(config)
    return Pool(config, _spawner(config))


def _spawner(config: PoolConfig) -> Spawner:
    """Return the spawner of a pool's backend. Imports stay local: docker is an extra."""
    if isinstance(config, DockerSandboxConfig):
        from agentrl.sandbox.docker import DockerSpawner

        return DockerSpawner(config, config.docker)
    if isinstance(config, LocalSandboxConfig):
        from agentrl.sandbox.local import LocalSpawner

        return LocalSpawner(config)
    from agentrl.sandbox.bubblewrap import BubblewrapSpawner

    assert isinstance(config, BubblewrapSandboxConfig)
    return BubblewrapSpawner(config, config.bubblewrap)


class AutoSandbox(Sandbox):
    """Docker when its daemon answers, else bubblewrap; decided when started."""

    name = "auto"

    def __init__(self, config: AutoSandboxConfig) -> None:
        self._config = config
        self._chosen: Sandbox | None = None

    async def start(self) -> None:
        """Start the first backend that can be had.

        Raises:
            NotReadyError: none can, with each one's reason.
        """
        limits = self._config.model_dump(exclude={"type", "docker", "bubblewrap"})
        candidates: tuple[SandboxConfig, ...] = (
            DockerSandboxConfig(docker=self._config.docker, **limits),
            BubblewrapSandboxConfig(bubblewrap=self._config.bubblewrap, **limits),
        )
        reasons = []
        for candidate in candidates:
            sandbox = open_sandbox(candidate)
            try:
                await sandbox.start()
            except NotReadyError as error:
                reasons.append(str(error))
                continue
            self._chosen, self.name = sandbox, sandbox.name
            logger.info("sandbox: %s", sandbox.isolation())
            return
        raise NotReadyError(
            "no sandbox is to be had. "
            + "; ".join(reasons)
            + ". Install one: `apt-get install bubblewrap`, or start a Docker daemon"
        )

    @property
    def backend(self) -> Sandbox:
        """The backend that was chosen."""
        if self._chosen is None:
            raise NotReadyError("the sandbox has not been started: use `async with` or start()")
        return self._chosen

    async def run(self, request: RunRequest) -> RunResult:
        """Run one program."""
        return await self.backend.run(request)

    async def open_session(self, *, memory_mb: int = 256, owner: str = "") -> Session:
        """Open a stateful Python session."""
        return await self.backend.open_session(memory_mb=memory_mb, owner=owner)

    async def close(self) -> None:
        """Close the chosen backend."""
        if self._chosen is not None:
            await self._chosen.close()

    def isolation(self) -> str:
        """Say in one line which isolation is in force."""
        return self.backend.isolation()
