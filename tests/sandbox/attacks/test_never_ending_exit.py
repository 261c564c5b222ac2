"""Exit functions and threads that never end."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


@pytest.mark.parametrize(
    "code",
    [
        "import atexit, time; atexit.register(time.sleep, 60); print('main')",
        "import threading, time; threading.Timer(60, print).start(); print('main')",
        "import sys, time\nsys.excepthook = lambda *a: time.sleep(60)\nprint('main')\n1/0",
    ],
)
async def test_they_time_out_with_their_output(attack: Attack, code: str) -> None:
    result = await attack(code, run_timeout_s=0.5)
    assert result.status is RunStatus.TIMEOUT


async def test_exit_functions_run(attack: Attack) -> None:
    result = await attack("import atexit; atexit.register(print, 'bye'); print('main')")
    assert result.stdout == "main\nbye\n"
