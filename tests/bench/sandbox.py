"""The pool against `docker run` and `docker exec`, in one run, medians; last line one JSON object.

`python tests/bench/sandbox.py [--seconds 3]` needs a Docker daemon. Every contender runs
`print(1+1)` in the same image under the same hardening, from 8 callers:

- pool_vs_docker_run, pool_vs_docker_exec: executions per second of the pool over theirs
- latency_p50_ms: the pool's, from one caller
- http_vs_pool: `POST /run_code` on `agentrl sandbox serve` over the pool's own rate
- lost: wrong or missing answers of 200 clients that wait for 2 slots; queue_p99_ms is their wait
- idle_slot_mb: resident memory of one more idle slot, its container's shim included
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx

from agentrl.config.sandbox import DockerSandboxConfig
from agentrl.contracts.sandbox import RunRequest, Sandbox
from agentrl.sandbox import open_sandbox
from agentrl.sandbox.docker import connect
from agentrl.sandbox.image import ensure_image
from agentrl.sandbox.measure import ANSWER, PROGRAM, measure

CALLERS = 8
ROUNDS = 3
WAITING_CLIENTS = 200
HARDENED = (
    *("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
    *("--pids-limit=64", "--memory=512m", "--memory-swap=512m", "--cpus=1"),
    *("--user=12345:12345", "--tmpfs=/box:rw,size=64m"),
)
PRINT = ["python3", "-c", "print(1+1)"]
Call = Callable[[], Awaitable[bool]]


async def rate(call: Call, seconds: float) -> float:
    """Return right answers per second of `CALLERS` callers."""
    deadline = time.perf_counter() + seconds
    started, answers = time.perf_counter(), 0

    async def caller() -> None:
        nonlocal answers
        while time.perf_counter() < deadline:
            right = await call()
            answers += right

    await asyncio.gather(*[caller() for _ in range(CALLERS)])
    return answers / (time.perf_counter() - started)


async def command_prints_two(*command: str) -> bool:
    """Run a command; whether it printed 2."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    return output.decode() == ANSWER


@contextlib.asynccontextmanager
async def long_lived(image: str) -> AsyncIterator[list[str]]:
    """Start one hardened container per caller for `docker exec`; yields their names."""
    names = [f"agentrl-bench-{os.getpid()}-{number}" for number in range(CALLERS)]
    sleep = ["python3", "-c", "import time; time.sleep(3600)"]
    for name in names:
        await command_prints_two(
            "docker", "run", "-d", "--rm", "--name", name, *HARDENED, image, *sleep
        )
    try:
        yield names
    finally:
        await command_prints_two("docker", "rm", "-f", *names)


@contextlib.asynccontextmanager
async def served(workers: int) -> AsyncIterator[str]:
    """Start `agentrl sandbox serve` in a process of its own; yields the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve = "from agentrl.cli.sandbox import app; app()"
    arguments = ["serve", "type=docker", f"workers={workers}", "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", serve, *arguments, stdout=log, stderr=log
        )
        url = f"http://127.0.0.1:{port}"
        try:
            async with httpx.AsyncClient() as client:
                for _ in range(300):
                    with contextlib.suppress(httpx.HTTPError):
                        await client.get(f"{url}/v1/ping")
                        break
                    await asyncio.sleep(0.1)
            yield url
        finally:
            process.terminate()
            await process.wait()


class RawClient:
    """A keep-alive HTTP client that costs little, so that the server is what is measured."""

    def __init__(self, url: str) -> None:
        self._address = url.removeprefix("http://")
        body = json.dumps({"code": PROGRAM.code, "language": "python"})
        head = f"POST /run_code HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        self._request = (head + body).encode()
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(self) -> bool:
        """Run one program; whether it printed 2."""
        if not self._free:
            host, port = self._address.split(":")
            self._free.append(await asyncio.open_connection(host, int(port)))
        reader, writer = connection = self._free.pop()
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        answer = json.loads(await reader.readexactly(size))
        self._free.append(connection)
        return answer["status"] == "Success" and answer["run_result"]["stdout"] == ANSWER

    def close(self) -> None:
        """Close the connections."""
        for _, writer in self._free:
            writer.close()
        self._free.clear()


async def waiting_clients(sandbox: Sandbox) -> tuple[int, float]:
    """Let 200 clients wait for the slots; returns wrong answers and the 99th percentile in ms."""
    waits_ms: list[float] = []

    async def client(number: int) -> bool:
        started = time.perf_counter()
        result = await sandbox.run(RunRequest(code=f"print({number})", owner=str(number % 20)))
        waits_ms.append((time.perf_counter() - started - result.duration_s) * 1e3)
        return result.stdout == f"{number}\n"

    right = await asyncio.gather(*[client(n) for n in range(WAITING_CLIENTS)])
    return right.count(False), sorted(waits_ms)[int(len(waits_ms) * 0.99)]


def resident_mb() -> float:
    """Return the memory of all fork servers and container shims in MiB, shared pages shared out."""
    total_kib = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, StopIteration):
            command = (folder / "cmdline").read_text()
            if "supervisor.py" in command or "containerd-shim" in command:
                lines = (folder / "smaps_rollup").read_text().splitlines()
                total_kib += next(int(x.split()[1]) for x in lines if x.startswith("Pss:"))
    return total_kib / 1024


async def idle_slot_mb(workers: int = 8) -> float:
    """Return what one more idle slot takes, from the difference of nine and one."""
    used = []
    for count in (1, 1 + workers):
        async with open_sandbox(DockerSandboxConfig(workers=count)):
            await asyncio.sleep(1.0)
            used.append(resident_mb())
    return (used[1] - used[0]) / workers


async def bench(seconds: float, workers: int) -> dict[str, float]:
    """Measure everything, interleaved in rounds, and return the medians."""
    config = DockerSandboxConfig(workers=workers)
    client = await connect(config.docker)
    image = await ensure_image(client, config.docker)
    client.close()
    rounds: dict[str, list[float]] = {"pool": [], "run": [], "exec": [], "http": [], "p50": []}
    async with (
        open_sandbox(config) as sandbox,
        long_lived(image) as names,
        served(workers) as url,
    ):
        web = RawClient(url)
        turns = iter(range(sys.maxsize))

        async def pool_call() -> bool:
            return (await sandbox.run(PROGRAM)).stdout == ANSWER

        async def run_call() -> bool:
            return await command_prints_two("docker", "run", "--rm", *HARDENED, image, *PRINT)

        async def exec_call() -> bool:
            name = names[next(turns) % CALLERS]
            return await command_prints_two("docker", "exec", name, *PRINT)

        for _ in range(ROUNDS):
            rounds["pool"].append(await rate(pool_call, seconds))
            rounds["http"].append(await rate(web.call, seconds))
            web.close()
            rounds["run"].append(await rate(run_call, seconds))
            rounds["exec"].append(await rate(exec_call, seconds))
            single = await measure(sandbox, executions=150, concurrency=1)
            rounds["p50"].append(single.p50_ms)
    async with open_sandbox(DockerSandboxConfig(workers=2)) as sandbox:
        lost, queue_p99_ms = await waiting_clients(sandbox)
    middle = {name: statistics.median(values) for name, values in rounds.items()}
    return {
        "pool_vs_docker_run": middle["pool"] / middle["run"],
        "pool_vs_docker_exec": middle["pool"] / middle["exec"],
        "latency_p50_ms": middle["p50"],
        "http_vs_pool": middle["http"] / middle["pool"],
        "lost": lost,
        "queue_p99_ms": queue_p99_ms,
        "idle_slot_mb": await idle_slot_mb(),
        "pool_per_second": middle["pool"],
        "http_per_second": middle["http"],
        "docker_run_per_second": middle["run"],
        "docker_exec_per_second": middle["exec"],
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=3.0, help="per contender and round")
    parser.add_argument("--workers", type=int, default=8)
    arguments = parser.parse_args()
    figures = asyncio.run(bench(arguments.seconds, arguments.workers))
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
