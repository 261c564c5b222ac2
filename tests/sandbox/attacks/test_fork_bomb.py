"""A program that forks for ever is told that it met the process limit."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_a_python_fork_bomb_meets_the_process_limit(attack: Attack) -> None:
    result = await attack("import os\nwhile True: os.fork()")
    assert result.status is RunStatus.PROCESS_LIMIT


async def test_a_patient_fork_bomb_meets_the_process_limit(attack: Attack) -> None:
    code = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
    assert (await attack(code)).status is RunStatus.PROCESS_LIMIT


async def test_a_bash_fork_bomb_is_gone_afterwards(attack: Attack) -> None:
    result = await attack("f() { f | f & }; f; sleep 30", language="bash")
    assert result.status is RunStatus.PROCESS_LIMIT
