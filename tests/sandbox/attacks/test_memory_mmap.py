"""Anonymous and shared mappings."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


@pytest.mark.parametrize("size", [1 << 30, 1 << 45])
async def test_a_huge_mapping_is_refused(attack: Attack, size: int) -> None:
    code = f"import mmap\nm = mmap.mmap(-1, {size})\nfor i in range(0, {size}, 4096): m[i] = 1"
    assert (await attack(code)).status is RunStatus.MEMORY_LIMIT


async def test_many_processes_together_meet_the_memory_limit(attack: Attack) -> None:
    code = """
import os, time
for _ in range(12):
    if os.fork() == 0:
        x = bytearray(60_000_000)
        for i in range(0, len(x), 4096): x[i] = 1
        time.sleep(30)
import sys
while True:
    os.wait()
    sys.exit(1)
"""
    assert (await attack(code, run_timeout_s=3.0)).status is RunStatus.MEMORY_LIMIT
