"""Closing one's own output is not an error of the sandbox."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_closing_stdout_is_harmless(attack: Attack) -> None:
    result = await attack("import os; os.close(1); os.close(2)")
    assert (result.status, result.stdout) == (RunStatus.OK, "")


async def test_a_program_without_streams_still_times_out(attack: Attack) -> None:
    code = "import os, time\nos.closerange(0, 64)\ntime.sleep(60)"
    assert (await attack(code, run_timeout_s=0.5)).status is RunStatus.TIMEOUT


async def test_output_kept_open_by_a_daemon_does_not_delay_the_answer(attack: Attack) -> None:
    code = "import os, time\nif os.fork() == 0:\n  os.setsid(); time.sleep(60)\nprint('done')"
    result = await attack(code, run_timeout_s=10)
    assert (result.status, result.stdout) == (RunStatus.OK, "done\n")
    assert result.duration_s < 5
