"""Memory taken by way of files in memory."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_shared_memory_files_are_bounded(attack: Attack) -> None:
    code = """
with open("/dev/shm/evil", "wb") as f:
    while True: f.write(bytes(1_000_000))
"""
    assert (await attack(code)).status is RunStatus.DISK_LIMIT


async def test_memory_files_are_bounded(attack: Attack) -> None:
    code = """
import os
fds = []
while True:
    fd = os.memfd_create("evil")
    fds.append(fd)
    for _ in range(20): os.write(fd, bytes(1_000_000))
"""
    result = await attack(code, run_timeout_s=3.0)
    assert result.status in (RunStatus.MEMORY_LIMIT, RunStatus.DISK_LIMIT)
