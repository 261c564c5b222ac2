"""The host's files."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult

pytestmark = pytest.mark.asyncio(loop_scope="session")
PLACES = (
    *("/etc/shadow", "/root/.ssh", "/root/.bash_history", "/home", "/var/lib", "/boot"),
    *("/proc/kcore", "/proc/1/root/etc", "/dev/sda", "/dev/vda", "/dev/mem", "/dev/kmsg"),
    "/sys/kernel/debug",
)
SETTINGS = (
    *("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/self/oom_score_adj"),
    "/proc/sys/kernel/hostname",
)
Attack = Callable[..., Awaitable[RunResult]]


async def test_nothing_of_the_host_is_visible(attack: Attack) -> None:
    code = f"""
import os
for path in {PLACES}:
    try:
        print(path, os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1))
    except OSError: pass
"""
    lines = (await attack(code)).stdout.splitlines()
    assert [line for line in lines if not line.endswith("[]")] == []


async def test_the_root_cannot_be_written(attack: Attack) -> None:
    code = """
import os
for folder, _, _ in os.walk("/"):
    if folder.startswith(("/proc", "/box/0", "/dev/shm", "/sys")): continue
    try:
        open(folder + "/evil", "w").close(); print("wrote", folder)
    except OSError: pass
    if folder.count("/") > 3: continue
"""
    assert (await attack(code, run_timeout_s=10)).stdout == ""


async def test_the_kernels_settings_cannot_be_written(attack: Attack) -> None:
    code = f"""
for path in {SETTINGS}:
    try:
        with open(path, "w") as f: f.write("-1000")
        print("wrote", path)
    except OSError: pass
"""
    assert (await attack(code)).stdout == ""
