"""Busy loops, in one process and in many."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_a_busy_loop_times_out(attack: Attack) -> None:
    assert (await attack("while True: pass", run_timeout_s=0.5)).status is RunStatus.TIMEOUT


async def test_a_busy_loop_in_c_times_out(attack: Attack) -> None:
    code = "sum(x for x in iter(int, 1))"
    assert (await attack(code, run_timeout_s=0.5)).status is RunStatus.TIMEOUT


async def test_busy_children_end_with_their_parent(attack: Attack) -> None:
    code = """
import os
for _ in range(5):
    if os.fork() == 0:
        while True: pass
print("done")
"""
    result = await attack(code)
    assert (result.status, result.stdout) == (RunStatus.OK, "done\n")
