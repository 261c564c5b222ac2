"""Python objects without end."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_growing_objects_meet_the_memory_limit(attack: Attack) -> None:
    code = "x = []\nwhile True: x.append(bytearray(1_000_000))"
    assert (await attack(code, memory_mb=64)).status is RunStatus.MEMORY_LIMIT


async def test_catching_the_error_does_not_help(attack: Attack) -> None:
    code = """
x = []
while True:
    try:
        while True: x.append(bytearray(1_000_000))
    except MemoryError:
        pass
"""
    assert (await attack(code, memory_mb=64)).status is RunStatus.TIMEOUT
