"""Frames of the server's protocol, written wherever a descriptor may lead."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_no_descriptor_leads_to_the_host(attack: Attack) -> None:
    code = """
import json, os, struct
text = json.dumps({"op": "result", "id": 1, "status": "ok", "blobs": [4, 0]}).encode()
frame = struct.pack(">II", len(text), 4) + text + b"evil"
found = []
for fd in range(3, 1024):
    try:
        os.fstat(fd); found.append(fd); os.write(fd, frame)
    except OSError: pass
for path in ("/proc/1/fd/0", "/proc/1/fd/1", "/proc/1/fd/3", "/proc/1/fd/4", "/proc/2/fd/3"):
    try: open(path, "wb").write(frame); print("wrote", path)
    except OSError: pass
os.write(1, frame)
print(found)
"""
    result = await attack(code)
    assert result.status is RunStatus.OK
    assert result.stdout.endswith("evil[]\n") and "wrote" not in result.stdout
