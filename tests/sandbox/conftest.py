"""One warm pool per backend for the whole test session."""

import os
import shutil
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from agentrl.config.sandbox import (
    BubblewrapSandboxConfig,
    DockerSandboxConfig,
    PoolConfig,
    SandboxConfig,
)
from agentrl.contracts.sandbox import Sandbox
from agentrl.sandbox import open_sandbox

ConfigFor = Callable[..., SandboxConfig]
LIMITS = {"workers": 2, "memory_mb": 256, "disk_mb": 32, "processes": 32, "max_files": 5000}
BACKENDS = (
    pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
    pytest.param("docker", marks=pytest.mark.docker),
)


def _config_for(backend: str, **changes: object) -> SandboxConfig:
    """Return the small pool that tests use, or skip where the backend cannot be had."""
    kinds: dict[str, type[PoolConfig]] = {
        "bubblewrap": BubblewrapSandboxConfig,
        "docker": DockerSandboxConfig,
    }
    if backend == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    if backend == "docker":
        _need_docker()
    return kinds[backend].model_validate({**LIMITS, **changes})  # type: ignore[return-value]


def _need_docker() -> None:
    docker = pytest.importorskip("docker", reason="the Docker SDK is not installed")
    try:
        client = docker.from_env(timeout=10)
        client.ping()
    except docker.errors.DockerException as error:
        if os.environ.get("AGENTRL_REQUIRE_DOCKER"):
            pytest.fail(f"AGENTRL_REQUIRE_DOCKER is set, but no daemon answers: {error}")
        pytest.skip(f"no Docker daemon answers: {error}")
    client.close()


@pytest.fixture(scope="session")
def config_for() -> ConfigFor:
    """Make the configuration of a small pool: `config_for(backend, **changes)`."""
    return _config_for


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The backend's name; skips once per session where it cannot be had."""
    name: str = request.param
    _config_for(name)
    return name


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sandbox(backend: str) -> AsyncIterator[Sandbox]:
    """A started sandbox of two workers."""
    async with open_sandbox(_config_for(backend)) as sandbox:
        yield sandbox
