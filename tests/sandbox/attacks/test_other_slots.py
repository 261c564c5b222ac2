"""Reading what belongs to others: their files, their processes, the server's memory."""

import secrets
from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_the_servers_memory_and_descriptors_are_closed(attack: Attack) -> None:
    code = """
import os
for pid in [n for n in os.listdir("/proc") if n.isdigit()]:
    if os.path.realpath("/proc/self") == f"/proc/{pid}": continue
    for name in ("mem", "environ", "maps", "fd", "root", "cwd"):
        path = f"/proc/{pid}/{name}"
        try:
            os.listdir(path) if name in ("fd", "root", "cwd") else open(path, "rb").read(1)
            print("open:", path)
        except OSError: pass
"""
    assert (await attack(code)).stdout == ""


async def test_no_other_slot_can_be_entered(attack: Attack) -> None:
    code = """
import os
for name in os.listdir("/box"):
    if os.getcwd().startswith(f"/box/{name}/"): continue
    for sub in ("work", "code", "tmp"):
        try: print(os.listdir(f"/box/{name}/{sub}"))
        except OSError: pass
"""
    assert (await attack(code)).stdout == ""


async def test_earlier_programs_are_not_in_memory(attack: Attack) -> None:
    secret = f"needle-{secrets.token_hex(16)}"
    before = await attack(f"s = {secret!r}", stdin=secret, files={"s": secret.encode()})
    assert before.status is RunStatus.OK
    code = """
import re
found = set()
for line in open("/proc/self/maps"):
    span, modes = line.split()[:2]
    if "r" not in modes or "[v" in line: continue
    start, end = (int(x, 16) for x in span.split("-"))
    with open("/proc/self/mem", "rb", 0) as memory:
        memory.seek(start)
        found.update(re.findall(rb"needle-[0-9a-f]{32}", memory.read(end - start)))
print(found)
"""
    result = await attack(code, run_timeout_s=5)
    assert result.stdout == "set()\n", result
