"""As many files and folders as there may be."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_100_000_files_are_bounded_or_removed(attack: Attack) -> None:
    code = "for n in range(100_000): open(f'evil{n}', 'w').close()"
    result = await attack(code, run_timeout_s=15)
    assert result.status in (RunStatus.DISK_LIMIT, RunStatus.OK)


async def test_a_deep_nest_of_folders_is_removed(attack: Attack) -> None:
    code = """
import os
for n in range(2000):
    os.mkdir("evil"); os.chdir("evil")
print("deep")
"""
    result = await attack(code, run_timeout_s=5)
    assert result.stdout == "deep\n", result


async def test_folders_closed_to_their_owner_are_removed(attack: Attack) -> None:
    code = """
import os
os.makedirs("a/b/c"); open("a/b/c/f", "w").close()
os.chmod("a/b/c", 0); os.chmod("a/b", 0); os.chmod("a", 0); os.chmod(".", 0)
"""
    assert (await attack(code)).status is RunStatus.OK
