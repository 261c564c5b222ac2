"""What stands still or dies beneath a run: a vLLM server, a Docker daemon, disks."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import psutil
import torch
from fault_plugins import Fault, Times, play
from soak import Daemon

sys.path.append(str(Path(__file__).parents[1] / "support"))

from rewards_support import a_group
from vllm_support import plain_server

from agentrl.clients.client import HttpClient
from agentrl.config.engine import HttpEngineConfig
from agentrl.config.sandbox import DockerSandboxConfig
from agentrl.config.train import CheckpointConfig
from agentrl.config.watch import WatchConfig
from agentrl.contracts.sandbox import RunRequest, Sandbox
from agentrl.engines.http.engine import HttpEngine
from agentrl.engines.parity import ParityProbe
from agentrl.engines.weights import LiveWeights
from agentrl.plugins.reference import load_plugin
from agentrl.runs.reporter import Reporter
from agentrl.runs.run import Run
from agentrl.sandbox.factory import open_sandbox
from agentrl.templates.render import Renderer
from agentrl.traces.writer import TraceWriter
from agentrl.trainer.sync import WeightSync
from agentrl.watch.watch import Watch


class Server:
    """A real vLLM server with a tiny policy, whose processes can be stopped."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._processes: list[psutil.Process] = []
        self.url = ""

    def __enter__(self) -> Self:
        """Start it; takes about a minute."""
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.module, tokenizer = load_plugin("tasks/calculator/policy.py:build")(1)
        self.module.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        before = set(psutil.Process().children(recursive=True))
        python = Path(sys.executable)
        server = plain_server(python, folder, folder / "log", "--enable-scale-out")
        self.url = self._stack.enter_context(server)
        self._processes = [p for p in psutil.Process().children(recursive=True) if p not in before]
        return self

    def __exit__(self, *error: object) -> None:
        """End it."""
        self.signal(signal.SIGCONT)
        self._stack.close()

    def signal(self, number: signal.Signals) -> None:
        """Stop every process of it, or let it go on."""
        for process in self._processes:
            os.kill(process.pid, number)

    @asynccontextmanager
    async def engine(self, times: Times) -> Any:
        """Open an engine on it."""
        limit_s = times.deadline_s
        engine = HttpEngine(
            HttpEngineConfig(
                type="http", urls=[self.url], request_timeout_s=limit_s, update_timeout_s=limit_s
            )
        )
        await engine.start()
        try:
            yield engine
        finally:
            await engine.close()

    def faults(
        self, engine: HttpEngine, renderer: Renderer, times: Times, number: int
    ) -> Iterator[Fault]:
        """Yield what waits for a stopped server."""
        group = f"engine-{number}"
        yield Fault(
            kind="engine stopped (SIGSTOP) while it generates",
            resource="engine: generate",
            waiter=f"episode {group}-0",
            work=partial(play, renderer, times, group, engine=engine),
        )
        yield Fault(
            kind="weight transfer to a stopped engine",
            resource="weight transfer: the engine's update",
            waiter=f"step {number}",
            work=partial(ending, self._sync(engine, times, number).publish),
        )
        yield Fault(
            kind="an engine that never lets go of the weights",
            resource="weight transfer: the engine to let go of the weights",
            waiter=f"step {number}",
            work=partial(ending, partial(_update_while_read, self._sync(engine, times, number))),
        )
        group = f"judge-{number}"
        yield Fault(
            kind="judge's server stopped (SIGSTOP)",
            resource="scorer 'judge'",
            waiter=f"group {group}",
            work=partial(play, renderer, times, group, scorers={"judge": Judge(self.url).score}),
        )

    def _sync(self, engine: HttpEngine, times: Times, number: int) -> WeightSync:
        weights = LiveWeights(self.module)
        weights.version = number
        step = SimpleNamespace(progress=SimpleNamespace(step=number), needs=_as_it_is)
        return WeightSync(
            run=step,  # type: ignore[arg-type]
            engine=engine,
            weights=weights,
            probe=ParityProbe([], None, score=lambda _: [], exact=True),
            pause=False,
            deadline_s=times.deadline_s,
        )


class Judge:
    """Asks a server before it scores."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def score(self, trajectory: Any) -> float:
        """Ask."""
        client = HttpClient()
        await client.ask("GET", f"{self._url}/health", timeout_s=3600)
        return 1.0


class Programs:
    """A pool of one worker in a Docker daemon of its own, which is stopped and killed."""

    def __init__(self, daemon: Daemon, times: Times) -> None:
        self._daemon, self._times = daemon, times
        self._config = DockerSandboxConfig(
            workers=1, docker={"connect_timeout_s": 100 * times.tell_after_s}
        )

    @asynccontextmanager
    async def pool(self) -> Any:
        """Open the pool, with a program started already."""
        async with open_sandbox(self._config) as sandbox:
            await sandbox.run(RunRequest(code="print(1)"))
            yield sandbox

    def faults(self, sandbox: Sandbox, number: int) -> Iterator[Fault]:
        """Yield what waits for a stopped daemon."""
        for place, resource in enumerate(("run", "a free place")):
            owner = f"episode docker-{number}-{place}"
            request = RunRequest(code="print(1)", owner=owner, run_timeout_s=1)
            yield Fault(
                kind=f"daemon stopped (SIGSTOP): {resource}",
                # A worker that does not answer its pings is given up before: then for a place.
                resource="sandbox docker: " + resource * (resource != "run"),
                waiter=f"program of {owner}",
                work=partial(ending, partial(sandbox.run, request)),
            )
        yield Fault(
            kind="daemon stopped (SIGSTOP): start",
            resource="sandbox docker: start",
            waiter="the run",
            work=partial(ending, self._open),
        )

    def dead(self, sandbox: Sandbox, number: int) -> Fault:
        """Return what asks a daemon that was killed."""
        owner = f"episode dead-{number}"
        request = RunRequest(code="print(1)", owner=owner)
        return Fault(
            kind="daemon killed",
            resource="sandbox docker",
            waiter=owner,
            work=partial(ending, partial(sandbox.run, request)),
        )

    async def _open(self) -> None:
        async with open_sandbox(self._config):
            pass


class Weights:
    """A model that is one file on disk."""

    def save(self, folder: Path) -> None:
        """Write half a megabyte."""
        torch.save(torch.zeros(2**17), folder / "model.pt")


@contextmanager
def frozen_disk() -> Iterator[tuple[Path, Any]]:
    """Mount a file system of 16 MB; yields it and a function that freezes it or thaws it."""
    with tempfile.TemporaryDirectory() as work:
        image, folder = Path(work) / "image", Path(work) / "disk"
        folder.mkdir()
        image.write_bytes(b"")
        os.truncate(image, 16 * 2**20)
        _sh("mkfs.ext4", "-q", str(image))
        _sh("mount", "-o", "loop", str(image), str(folder))

        def freeze(on: bool) -> None:
            _sh("fsfreeze", "-f" if on else "-u", str(folder))

        try:
            yield folder, freeze
        finally:
            _sh("umount", "-l", str(folder))


@contextmanager
def full_disk() -> Iterator[Path]:
    """Mount a file system without a free byte."""
    with tempfile.TemporaryDirectory() as work:
        _sh("mount", "-t", "tmpfs", "-o", "size=256k", "none", work)
        try:
            yield Path(work)
        finally:
            _sh("umount", "-l", work)


def fill(folder: Path) -> None:
    """Leave no byte free."""
    with (folder / "ballast").open("wb", buffering=0) as file, _ignoring_a_full_disk():
        while True:
            file.write(b"\0" * 4096)


def disk_faults(frozen: Path, full: Path, times: Times, number: int) -> Iterator[Fault]:
    """Yield what writes to disks that stand still or are full; call before they do."""
    for name, root in (("stalled", frozen), ("full", full)):
        folder = root / f"{name}-{number}"
        folder.mkdir()
        yield Fault(
            kind=f"disk {name}: traces",
            resource=f"traces in {folder}" if name == "stalled" else f"traces file {folder}",
            waiter="the next step" if name == "stalled" else "",
            work=partial(ending, partial(_record, folder, times)),
        )
        run = Run({}, folder / "run", CheckpointConfig(), resume=False, reporter=Reporter())
        run.model = Weights()
        opened = run.opened()
        opened.__enter__()
        run.progress.step = number + 1
        yield Fault(
            kind=f"disk {name}: checkpoint",
            resource="disk: checkpoint" if name == "stalled" else "checkpoint",
            waiter="the run" if name == "stalled" else "",
            work=partial(ending, partial(_save, run, opened)),
        )
    folder = full / f"status-{number}"
    folder.mkdir()
    yield Fault(
        kind="disk full: status.json",
        resource=f"status of {folder}",
        waiter="",
        work=partial(_watch, folder, times),
    )


async def ending(work: Any) -> str:
    """Await work that is to fail; return its error as a run would show it."""
    try:
        await work()
    except (OSError, Exception) as error:
        return f"{type(error).__name__}: {error}"
    return "it succeeded"


async def _as_it_is(work: Any) -> Any:
    return await work


async def _update_while_read(sync: WeightSync) -> None:
    async with sync.weights.open(), sync.updating(1):
        pass


async def _record(folder: Path, times: Times) -> None:
    async with TraceWriter(folder, deadline_s=times.deadline_s) as writer:
        await writer.record(a_group("1"), step=1, split="train", fate="trained")
        await writer.flush()


async def _save(run: Run, opened: Any) -> None:
    try:
        await run.save()
    finally:
        opened.__exit__(None, None, None)


async def _watch(folder: Path, times: Times) -> str:
    said: list[str] = []
    with Watch(WatchConfig(tell_after_s=times.tell_after_s), said.append, folder=folder):
        async with asyncio.timeout(times.deadline_s):
            while not any("status of" in line for line in said):
                await asyncio.sleep(0.1)
    return next(line for line in said if "status of" in line)


@contextmanager
def _ignoring_a_full_disk() -> Iterator[None]:
    try:
        yield
    except OSError:
        return


def _sh(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
