"""Every way to end."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os; os._exit(7)", 7),
        ("raise SystemExit(300)", 44),
        ("exit('bye')", 1),
        ("quit()", 0),
        ("import sys; sys.exit(-1)", 255),
    ],
)
async def test_the_code_is_told(attack: Attack, code: str, expected: int) -> None:
    result = await attack(code)
    assert (result.exit_code, result.signal) == (expected, None)
    assert result.ok == (expected == 0)
