"""Becoming somebody else."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_ids_cannot_be_changed(attack: Attack) -> None:
    code = """
import os
for call in (os.setuid, os.setgid, os.seteuid):
    for number in (0, 1000 if os.getuid() != 1000 else 1001, 61000):
        try: call(number); print(call.__name__, number)
        except OSError: pass
try: os.setgroups([0]); print("groups")
except OSError: pass
assert os.getuid() != 0
"""
    result = await attack(code)
    assert (result.status, result.stdout) == (RunStatus.OK, "")


async def test_a_set_user_id_bit_gives_nothing(attack: Attack) -> None:
    code = """
import os, shutil, subprocess
shutil.copy("/bin/sh", "evil")
os.chmod("evil", 0o6755)
script = "while read k v; do case $k in Uid:) echo $v;; esac; done < /proc/self/status"
print(subprocess.run(["./evil", "-c", script], capture_output=True, text=True).stdout.split())
"""
    result = await attack(code)
    assert result.status is RunStatus.OK, result.stderr
    assert "'0'" not in result.stdout


async def test_there_are_no_capabilities_and_none_to_gain(attack: Attack) -> None:
    code = """
for line in open("/proc/self/status"):
    name, _, value = line.partition(":")
    if name in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert int(value, 16) == 0, line
    if name in ("NoNewPrivs", "Seccomp"):
        print(name, value.strip())
"""
    result = await attack(code)
    assert result.stdout == "NoNewPrivs 1\nSeccomp 2\n", result.stderr
