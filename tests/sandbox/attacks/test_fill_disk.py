"""Filling the disk."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_one_file_without_end_meets_the_disk_limit(attack: Attack) -> None:
    code = "f = open('evil', 'wb')\nwhile True: f.write(bytes(1_000_000))"
    assert (await attack(code)).status is RunStatus.DISK_LIMIT


async def test_many_files_meet_the_disk_limit(attack: Attack) -> None:
    code = """
n = 0
while True:
    n += 1
    open(f"evil{n}", "wb").write(bytes(5_000_000))
"""
    assert (await attack(code)).status is RunStatus.DISK_LIMIT


async def test_unlinked_files_are_given_back(attack: Attack) -> None:
    code = """
import os
kept = []
while True:
    f = open("evil", "wb"); kept.append(f); os.unlink("evil")
    f.write(bytes(4_000_000)); f.flush()
"""
    assert (await attack(code)).status is RunStatus.DISK_LIMIT
