"""From configuration to a sandbox; `auto` is decided here, and never in favour of no walls."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from agentrl.config.sandbox import (
    AutoSandboxConfig,
    BubblewrapSandboxConfig,
    DockerSandboxConfig,
    HttpSandboxConfig,
    LocalSandboxConfig,
    PoolConfig,
    SandboxConfig,
)
from agentrl.contracts.sandbox import Sandbox
from agentrl.errors import NotReadyError
from agentrl.sandbox.guest import Spawner
from agentrl.sandbox.pool import Pool
from agentrl.waits import DeadlineError, within

logger = logging.getLogger(__name__)

START_DEADLINE_S = 1800.0
"""Of a sandbox's start, the building of its image included."""


@asynccontextmanager
async def open_sandbox(config: SandboxConfig) -> AsyncIterator[Sandbox]:
    """Start the sandbox that `config` describes, and close it in the end.

    `auto` is Docker when its daemon answers, else bubblewrap.

    Raises:
        NotReadyError: it cannot be had; of `auto`, none can, with each one's reason.
    """
    sandbox = await _started(config)
    try:
        yield sandbox
    finally:
        await sandbox.close()


async def _started(config: SandboxConfig) -> Sandbox:
    if not isinstance(config, AutoSandboxConfig):
        sandbox = _backend(config)
        await _start(sandbox)
        return sandbox
    reasons = []
    for candidate in _candidates(config):
        sandbox = _backend(candidate)
        try:
            await _start(sandbox)
        except NotReadyError as error:
            reasons.append(str(error))
            continue
        logger.info("sandbox: %s", sandbox.isolation())
        return sandbox
    raise NotReadyError(
        "no sandbox is to be had. "
        + "; ".join(reasons)
        + ". Install one: `apt-get install bubblewrap`, or start a Docker daemon"
    )


async def _start(sandbox: Sandbox) -> None:
    try:
        await within(
            sandbox.start(),
            f"sandbox {sandbox.name}: start",
            "the run",
            remedy="look whether the backend's daemon answers (`docker info`)",
            deadline_s=START_DEADLINE_S,
        )
    except DeadlineError as error:
        raise NotReadyError(str(error)) from error


def make_pool(config: PoolConfig) -> Pool:
    """Return the pool of a backend on this machine, not started yet."""
    return Pool(config, _spawner(config))


def _backend(config: SandboxConfig) -> Sandbox:
    if isinstance(config, HttpSandboxConfig):
        from agentrl.sandbox.http import HttpSandbox

        return HttpSandbox(config)
    assert isinstance(config, PoolConfig)
    return make_pool(config)


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


def _candidates(config: AutoSandboxConfig) -> Iterator[SandboxConfig]:
    limits = config.model_dump(exclude={"type", "docker", "bubblewrap"})
    yield DockerSandboxConfig(docker=config.docker, **limits)
    yield BubblewrapSandboxConfig(bubblewrap=config.bubblewrap, **limits)
