"""How an attack is judged: contained, named rightly, and gone without a trace.

`attack(code)` runs a hostile program while an honest neighbour runs beside it. Afterwards the
neighbour must have its answer at the first attempt, and a probe in the same slot must find nothing
of the attack: no files, no processes, a fresh environment, an unharmed interpreter.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest_asyncio

from agentrl.contracts.sandbox import RunRequest, RunResult, Sandbox

Attack = Callable[..., Awaitable[RunResult]]

NEIGHBOUR = "import time; time.sleep(0.2); print(sum(range(1000)))"

PROBE = """
import builtins, json, os, signal, sys, threading, time
time.sleep(0.05)  # long enough for two probes to take two slots
mine = 0
for name in os.listdir("/proc"):
    if name.isdigit():
        try:
            mine += os.stat("/proc/" + name).st_uid == os.getuid()
        except OSError:
            pass
places = [os.listdir(p) for p in (".", "/tmp", "/dev/shm")]
assert places == [[], [], []], places
assert 1 <= mine <= PROCESSES, mine
assert threading.active_count() == 1
assert sorted(os.environ) == ENVIRONMENT, sorted(os.environ)
assert sys.path[0] == os.getcwd() and not any("evil" in p for p in sys.path), sys.path
assert not any(name.startswith("evil") for name in sys.modules)
assert not hasattr(builtins, "evil") and json.loads(json.dumps([1])) == [1]
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
open("file", "w").write("x" * 1000)
print("clean")
"""
ENVIRONMENT = ["HOME", "LANG", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PATH", "TMPDIR"]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def attack(sandbox: Sandbox) -> Attack:
    """Run a hostile program, judge its surroundings, and return its result."""

    async def run(code: str, **fields: Any) -> RunResult:
        request = RunRequest(code=code, **{"run_timeout_s": 1.0, **fields})
        neighbour = asyncio.create_task(sandbox.run(RunRequest(code=NEIGHBOUR)))
        result = await sandbox.run(request)
        beside = await neighbour
        assert (beside.stdout, beside.attempts) == ("499500\n", 1), beside
        probes = await asyncio.gather(*[sandbox.run(RunRequest(code=probe())) for _ in range(2)])
        assert [probe.stdout for probe in probes] == ["clean\n"] * 2, probes
        return result

    return run


def probe() -> str:
    """Return the probing program. In a PID namespace of its own it also sees its init."""
    return f"PROCESSES, ENVIRONMENT = 1, {ENVIRONMENT!r}\n{PROBE}"
