"""Measuring a sandbox: how many small programs a second, and how long one takes."""

import asyncio
import statistics
import time
from dataclasses import dataclass

from agentrl.contracts.sandbox import RunRequest, Sandbox
from agentrl.errors import SandboxError

PROGRAM = RunRequest(code="print(1+1)")
ANSWER = "2\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """Executions per second and latency quantiles in milliseconds; `lost` counts wrong answers."""

    executions: int
    concurrency: int
    per_second: float
    p50_ms: float
    p99_ms: float
    lost: int


async def measure(sandbox: Sandbox, *, executions: int, concurrency: int) -> Rate:
    """Run `print(1+1)` again and again from `concurrency` callers."""
    latencies_s: list[float] = []
    lost = 0

    async def caller(share: int) -> None:
        nonlocal lost
        for _ in range(share):
            started = time.perf_counter()
            try:
                right = (await sandbox.run(PROGRAM)).stdout == ANSWER
            except SandboxError:
                right = False
            latencies_s.append(time.perf_counter() - started)
            lost += not right

    shares = [len(range(n, executions, concurrency)) for n in range(concurrency)]
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for share in shares:
            group.create_task(caller(share))
    elapsed_s = time.perf_counter() - started
    latencies_s.sort()
    return Rate(
        executions=executions,
        concurrency=concurrency,
        per_second=executions / elapsed_s,
        p50_ms=statistics.median(latencies_s) * 1e3,
        p99_ms=latencies_s[min(len(latencies_s) - 1, int(len(latencies_s) * 0.99))] * 1e3,
        lost=lost,
    )
