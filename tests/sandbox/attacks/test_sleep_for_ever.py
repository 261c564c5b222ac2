"""Waiting costs nothing, and still ends."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(1e6)",
        "import signal; signal.pause()",
        "input_ = open('/dev/zero').read()",
    ],
)
async def test_it_times_out(attack: Attack, code: str) -> None:
    result = await attack(code, run_timeout_s=0.5)
    assert result.status in (RunStatus.TIMEOUT, RunStatus.MEMORY_LIMIT)
