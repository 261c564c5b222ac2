"""Threads count as processes."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_a_thread_bomb_meets_the_process_limit(attack: Attack) -> None:
    code = """
import threading, time
while True:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
"""
    assert (await attack(code)).status is RunStatus.PROCESS_LIMIT
