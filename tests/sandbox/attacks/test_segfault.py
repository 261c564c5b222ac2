"""Crashes."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


@pytest.mark.parametrize(
    ("code", "number"),
    [
        ("import ctypes; ctypes.string_at(0)", 11),
        ("import os; os.abort()", 6),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 9),
    ],
)
async def test_the_signal_is_told(attack: Attack, code: str, number: int) -> None:
    result = await attack(code)
    assert (result.status, result.signal, result.exit_code) == (RunStatus.ERROR, number, None)
