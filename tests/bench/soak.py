"""Hours of abuse in minutes: honest and hostile programs while containers and the daemon die.

`python tests/bench/soak.py --minutes 10` starts a Docker daemon of its own (needs root), runs a
random mix through a pool, kills containers at random and the daemon twice, and fails unless every
honest request was answered, right or as a `SandboxError`, and nothing grew from the first fifth of
the time to the end. The last line is one JSON object. `--backend bubblewrap` needs no daemon.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from agentrl.config.sandbox import (
    BubblewrapSandboxConfig,
    DockerSandboxConfig,
    SandboxConfig,
)
from agentrl.contracts.sandbox import RunRequest, RunResult, Sandbox
from agentrl.errors import SandboxError, ToolError
from agentrl.sandbox import open_sandbox

LIMITS = {"workers": 4, "memory_mb": 256, "disk_mb": 16, "processes": 32, "recycle_after": 200}
ANSWER_DEADLINE_S = 180.0
SAMPLE_EVERY_S = 2.0
HOSTILE = (
    "import os\nwhile True: os.fork()",
    "x = []\nwhile True: x.append(bytearray(10**6))",
    "while True: pass",
    "while True: print('x' * 1000)",
    "import os, time\nif os.fork() == 0: os.setsid(); time.sleep(99)",
    "import os, signal\nos.kill(-1, signal.SIGKILL)",
    "f = open('f', 'wb')\nwhile True: f.write(bytes(10**6))",
    "for n in range(5000): open(f'f{n}', 'w').close()",
    "import ctypes; ctypes.string_at(0)",
    "import os; os._exit(9)",
    "import signal; signal.pause()",
    "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,)).start()",
    "import os; [os.close(fd) for fd in range(3)]",
    "import os\nfor fd in range(3, 99):\n  try: os.write(fd, b'x' * 99)\n  except OSError: pass",
)


@dataclass(kw_only=True, slots=True)
class Tally:
    """What was asked and what came back."""

    honest: Counter[str] = field(default_factory=Counter)
    hostile: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)


class Daemon:
    """A Docker daemon of our own, to be killed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.host = f"unix://{root}/docker.sock"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it answers."""
        options = [f"--data-root={self._root}/data", f"--exec-root={self._root}/exec"]
        options += [f"--pidfile={self._root}/pid", "--bridge=none", "--iptables=false"]
        options += ["--ip6tables=false", "-H", self.host]
        with open(self._root / "log", "ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                "dockerd", *options, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(300):
            if await _succeeds("docker", "-H", self.host, "version"):
                return
            await asyncio.sleep(0.1)
        raise RuntimeError(f"dockerd did not start; see {self._root}/log")

    async def kill(self) -> None:
        """Kill it without warning."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()
        (self._root / "pid").unlink(missing_ok=True)

    def signal(self, number: signal.Signals) -> None:
        """Stop it (SIGSTOP), or let it go on."""
        assert self._process is not None
        self._process.send_signal(number)

    async def stop(self) -> None:
        """End it in peace, and the container shims that its killed predecessors left."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{self._root}/exec" in (folder / "cmdline").read_text():
                    os.kill(int(folder.name), signal.SIGKILL)
        # The daemon binds its data folder onto itself; left there, the folder could not go.
        await _succeeds("umount", "--lazy", f"{self._root}/data")

    async def kill_a_container(self) -> None:
        """Kill one running container."""
        names = (await _output("docker", "-H", self.host, "ps", "-q")).split()
        if names:
            await _succeeds("docker", "-H", self.host, "kill", random.choice(names))

    async def count_containers(self) -> int:
        """Count containers, running or not."""
        return len((await _output("docker", "-H", self.host, "ps", "-aq")).split())


async def _output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(20):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return ""
    return output.decode() if process.returncode == 0 else ""


async def _succeeds(*command: str) -> bool:
    return bool(await _output(*command))


async def honest(sandbox: Sandbox, tally: Tally) -> None:
    """Ask for something with a known answer."""
    number = random.randrange(10**9)
    programs = (
        RunRequest(code=f"print({number})"),
        RunRequest(code="print(input())", stdin=f"{number}\n"),
        RunRequest(code=f"open('f', 'w').write('{number}'); print(open('f').read())"),
        RunRequest(code="import os; print(open('n').read(), *os.listdir('/tmp'))",
                   files={"n": str(number).encode()}),
        RunRequest(code=f"echo {number}", language="bash"),
    )  # fmt: skip
    request = random.choice(programs)
    try:
        async with asyncio.timeout(ANSWER_DEADLINE_S):
            result = await sandbox.run(request)
    except SandboxError:
        tally.honest["sandbox_error"] += 1
    except TimeoutError:
        tally.wrong.append(f"no answer within {ANSWER_DEADLINE_S} s")
    else:
        if result.stdout.strip() == str(number):
            tally.honest["right" if result.attempts == 1 else "right after a retry"] += 1
        else:
            tally.wrong.append(f"{request.code!r}: {result}")


async def session(sandbox: Sandbox, tally: Tally) -> None:
    """Use a session for a few cells."""
    number = random.randrange(10**9)
    try:
        notebook = await sandbox.open_session(memory_mb=64)
        try:
            await notebook.run_cell(f"x = {number}")
            result: RunResult = await notebook.run_cell("x")
        finally:
            await notebook.close()
    except (SandboxError, ToolError):
        tally.honest["session lost"] += 1
        return
    if result.stdout == f"{number}\n":
        tally.honest["session right"] += 1
    else:
        tally.wrong.append(f"session: {result}")


async def hostile(sandbox: Sandbox, tally: Tally) -> None:
    """Run something nasty."""
    request = RunRequest(code=random.choice(HOSTILE), run_timeout_s=1.0, memory_mb=64)
    try:
        result = await sandbox.run(request)
    except SandboxError:
        tally.hostile["sandbox_error"] += 1
    else:
        tally.hostile[result.status.value] += 1


async def caller(sandbox: Sandbox, tally: Tally, deadline: float) -> None:
    """Mix honest and hostile until the time is over."""
    while time.monotonic() < deadline:
        draw = random.random()
        work = honest if draw < 0.75 else session if draw < 0.8 else hostile
        await work(sandbox, tally)


async def watch(tally: Tally, daemon: Daemon | None, deadline: float) -> None:
    """Sample what must not grow."""
    started = time.monotonic()
    while time.monotonic() < deadline:
        status = Path("/proc/self/status").read_text()
        rss_kib = next(int(x.split()[1]) for x in status.splitlines() if x.startswith("VmRSS"))
        sample: dict[str, float] = {
            "at_s": time.monotonic() - started,
            "descriptors": len(os.listdir("/proc/self/fd")),
            "processes": sum(name.isdigit() for name in os.listdir("/proc")),
            "rss_mb": rss_kib / 1024,
            "tasks": len(asyncio.all_tasks()),
        }
        if daemon is not None:
            sample["containers"] = await daemon.count_containers()
        tally.samples.append(sample)
        await asyncio.sleep(SAMPLE_EVERY_S)


async def destroy(daemon: Daemon, seconds: float) -> None:
    """Kill containers now and then, and the daemon at two fifths and at three fifths."""
    started = time.monotonic()
    kills = [0.4, 0.6]
    while (share := (time.monotonic() - started) / seconds) < 0.9:
        if kills and share > kills[0]:
            kills.pop(0)
            await daemon.kill()
            await asyncio.sleep(3)
            await daemon.start()
        await asyncio.sleep(random.uniform(1, 5))
        await daemon.kill_a_container()


def growth(samples: list[dict[str, float]]) -> dict[str, list[float]]:
    """Compare the medians of the second fifth and the last one."""
    fifth = max(1, len(samples) // 5)
    early, late = samples[fifth : 2 * fifth] or samples, samples[-fifth:]
    return {
        name: [round(statistics.median(s[name] for s in part), 1) for part in (early, late)]
        for name in samples[0]
        if name != "at_s"
    }


async def soak(config: SandboxConfig, daemon: Daemon | None, seconds: float) -> Tally:
    """Run the whole mix."""
    tally = Tally()
    deadline = time.monotonic() + seconds
    async with open_sandbox(config) as sandbox, asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(caller(sandbox, tally, deadline))
        group.create_task(watch(tally, daemon, deadline))
        if daemon is not None:
            group.create_task(destroy(daemon, seconds))
    return tally


async def run(backend: str, seconds: float) -> int:
    """Soak one backend; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="agentrl-soak-", ignore_cleanup_errors=True) as root:
        daemon = None
        config: SandboxConfig = BubblewrapSandboxConfig(**LIMITS)  # type: ignore[arg-type]
        if backend == "docker":
            config = DockerSandboxConfig(**LIMITS)  # type: ignore[arg-type]
            daemon = Daemon(Path(root))
            os.environ["DOCKER_HOST"] = daemon.host
            await daemon.start()
        try:
            tally = await soak(config, daemon, seconds)
            left = await daemon.count_containers() if daemon is not None else 0
        finally:
            if daemon is not None:
                with contextlib.suppress(ProcessLookupError):
                    await daemon.stop()
    changes = growth(tally.samples)
    grew = [name for name, (early, late) in changes.items() if late > early * 1.25 + 6]
    print(*tally.wrong[:10], sep="\n")
    print(
        json.dumps(
            {
                "honest": tally.honest,
                "hostile": tally.hostile,
                "wrong": len(tally.wrong),
                "containers_left": left,
                "early_and_late": changes,
                "grew": grew,
            }
        )
    )
    return 1 if tally.wrong or grew or left else 0


def main() -> None:
    """Parse arguments and soak."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--backend", choices=["docker", "bubblewrap"], default="docker")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(run(arguments.backend, arguments.minutes * 60)))


if __name__ == "__main__":
    main()
