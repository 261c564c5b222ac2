"""Symbolic and hard links out of the work directory."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_a_symbolic_link_is_not_fetched(attack: Attack) -> None:
    code = "import os; os.symlink('/etc/passwd', 'out'); os.symlink('/proc/1/environ', 'env')"
    result = await attack(code, fetch_files=("out", "env"))
    assert (result.status, result.files) == (RunStatus.OK, {})


async def test_the_work_directory_cannot_be_swapped(attack: Attack) -> None:
    code = """
import os
attempts = [(os.rename, "../work", "../x"), (os.rmdir, "../work"), (os.symlink, "/", "../x")]
for call, *arguments in [*attempts, (os.rename, "../tmp", "../x")]:
    try: call(*arguments); print("did", call)
    except OSError: pass
os.symlink("/usr", "dir"); os.symlink(".", "loop")
"""
    result = await attack(code)
    assert (result.status, result.stdout) == (RunStatus.OK, "")


async def test_hard_links_to_the_systems_files_are_refused(attack: Attack) -> None:
    code = """
import os
for path in ("/usr/bin/env", "/opt/agentrl/supervisor.py", "/etc/ld.so.cache"):
    try: os.link(path, "evil"); print("linked", path)
    except OSError: pass
"""
    assert (await attack(code)).stdout == ""


async def test_links_to_folders_are_removed_and_not_followed(attack: Attack) -> None:
    code = """
import os
for n in range(50): os.symlink("/usr/lib", f"evil{n}")
os.mkdir("d"); os.symlink("..", "d/up")
"""
    assert (await attack(code)).status is RunStatus.OK
