"""Ignoring every signal does not help against SIGKILL."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_it_times_out_all_the_same(attack: Attack) -> None:
    code = """
import signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
while True: pass
"""
    assert (await attack(code, run_timeout_s=0.5)).status is RunStatus.TIMEOUT


async def test_stopped_children_are_killed_too(attack: Attack) -> None:
    code = "import os, signal\nif os.fork() == 0: os.kill(os.getpid(), signal.SIGSTOP)\nprint('x')"
    assert (await attack(code)).status is RunStatus.OK
