"""Sparse and huge files."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_a_sparse_file_beyond_the_limit_is_refused(attack: Attack) -> None:
    code = "f = open('evil', 'wb'); f.truncate(1 << 40)"
    assert (await attack(code)).status is RunStatus.DISK_LIMIT


async def test_a_large_file_is_not_fetched(attack: Attack) -> None:
    code = "f = open('evil', 'wb'); f.truncate(30 << 20)"
    result = await attack(code, fetch_files=("evil",))
    assert result.status is RunStatus.OK
    assert len(result.files.get("evil", b"")) in (0, 30 << 20)


async def test_a_pipe_or_device_is_not_fetched(attack: Attack) -> None:
    code = "import os; os.mkfifo('pipe'); os.symlink('/dev/zero', 'zero')"
    result = await attack(code, fetch_files=("pipe", "zero"))
    assert (result.status, result.files) == (RunStatus.OK, {})
