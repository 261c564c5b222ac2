"""Daemons that mean to outlive their execution."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_double_forked_daemons_end_with_the_program(attack: Attack) -> None:
    code = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork(): os._exit(0)
        while True:
            open("/tmp/evil", "a").write("x")
            time.sleep(0.01)
time.sleep(0.1)
"""
    assert (await attack(code)).status is RunStatus.OK


async def test_a_chain_that_forks_and_dies_is_caught(attack: Attack) -> None:
    code = """
import os
if os.fork() == 0:
    while True:
        if os.fork(): os._exit(0)
"""
    assert (await attack(code)).status is RunStatus.OK


async def test_a_self_made_reaper_does_not_hide_them(attack: Attack) -> None:
    code = """
import ctypes, os, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
if os.fork() == 0:
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    if os.fork() == 0: time.sleep(60)
    time.sleep(60)
"""
    assert (await attack(code)).status is RunStatus.OK
