"""Recursion without end, in Python and in C."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_python_recursion_is_the_programs_error(attack: Attack) -> None:
    result = await attack("def f(): f()\nf()")
    assert result.status is RunStatus.ERROR and "RecursionError" in result.stderr


async def test_a_blown_stack_is_the_programs_error(attack: Attack) -> None:
    code = "import sys; sys.setrecursionlimit(10**9)\nf = lambda x: eval('f(x)')\nf(1)"
    result = await attack(code, run_timeout_s=5)
    assert result.status in (RunStatus.ERROR, RunStatus.MEMORY_LIMIT)
