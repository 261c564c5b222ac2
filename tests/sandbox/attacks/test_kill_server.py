"""Killing process 1, the fork server, everything."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_signals_do_not_reach_the_server(attack: Attack) -> None:
    code = """
import os, signal
for pid in range(1, 40):
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGINT, signal.SIGSEGV):
        if pid != os.getpid():
            try: os.kill(pid, number)
            except OSError: pass
print("tried")
"""
    result = await attack(code)
    assert (result.status, result.stdout, result.attempts) == (RunStatus.OK, "tried\n", 1)


async def test_killing_all_kills_nobody_else(attack: Attack) -> None:
    code = (
        "import os, signal\ntry: os.kill(-1, signal.SIGKILL)\nexcept OSError: pass\nprint('tried')"
    )
    result = await attack(code)
    assert (result.status, result.stdout, result.attempts) == (RunStatus.OK, "tried\n", 1)


async def test_killing_without_pause_does_not_stop_the_clean_up(attack: Attack) -> None:
    code = """
import os, signal
os.setsid()
for _ in range(4): os.fork()
while True:
    try: os.kill(-1, signal.SIGTERM)
    except OSError: pass
    for pid in range(2, 20):
        try: os.kill(pid, signal.SIGKILL)
        except OSError: pass
"""
    result = await attack("import signal; signal.signal(15, signal.SIG_IGN)\n" + code)
    assert result.attempts == 1
    assert result.status in (RunStatus.TIMEOUT, RunStatus.ERROR)


async def test_the_servers_limits_cannot_be_changed(attack: Attack) -> None:
    code = """
import resource
for pid in range(1, 10):
    try:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, 1))
        print("changed", pid)
    except OSError: pass
"""
    assert (await attack(code)).stdout == ""
