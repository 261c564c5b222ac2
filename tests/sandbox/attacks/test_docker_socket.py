"""The daemon that made the container."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_there_is_no_docker_socket(attack: Attack) -> None:
    code = """
import os, socket
for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock"):
    try:
        s = socket.socket(socket.AF_UNIX); s.connect(path); print("connected", path)
    except OSError: pass
"""
    assert (await attack(code)).stdout == ""
