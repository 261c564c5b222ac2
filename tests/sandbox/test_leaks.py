"""What a run leaves behind when it is killed: nothing."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrl.config.sandbox import SandboxConfig
from agentrl.sandbox import open_sandbox
from agentrl.sandbox.labels import Labels, Owner, reap

RUN = """
import asyncio, sys
from agentrl.config.sandbox import BubblewrapSandboxConfig, DockerSandboxConfig
from agentrl.contracts.sandbox import RunRequest
from agentrl.sandbox import open_sandbox

async def main():
    config = {"bubblewrap": BubblewrapSandboxConfig, "docker": DockerSandboxConfig}[sys.argv[1]]
    async with open_sandbox(config(workers=2)) as sandbox:
        print("ready", flush=True)
        await sandbox.run(RunRequest(code="import time; time.sleep(99)", run_timeout_s=99))

asyncio.run(main())
"""


def descendants(marker: str) -> list[str]:
    """List command lines of living fork servers that carry `marker` in their settings."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_text()
        except OSError:
            continue
        if "supervisor.py" in line and marker in line:
            found.append(line)
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def client() -> Iterator[Any]:
    docker = pytest.importorskip("docker", reason="the Docker SDK is not installed")
    client = docker.from_env(timeout=10)
    yield client
    client.close()


def started(backend: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, backend], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_killed_run_leaves_no_container(
    backend: str, config_for: Callable[..., SandboxConfig], request: pytest.FixtureRequest
) -> None:
    if backend != "docker":
        pytest.skip("docker only")
    client = request.getfixturevalue("client")
    process = started("docker")
    mine = {"label": f"agentrl.sandbox.pid={process.pid}"}
    assert len(client.api.containers(filters=mine)) == 2
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert wait_until(lambda: not client.api.containers(all=True, filters=mine), 60)


def test_a_killed_run_leaves_no_process_and_no_control_group(
    backend: str, config_for: Callable[..., SandboxConfig]
) -> None:
    if backend != "bubblewrap":
        pytest.skip("bubblewrap only")
    before = len(descendants("/box"))
    process = started("bubblewrap")
    assert len(descendants("/box")) > before
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert wait_until(lambda: len(descendants("/box")) <= before, 10)

    async def start_and_stop() -> None:
        async with open_sandbox(config_for("bubblewrap", workers=1)):
            pass

    with asyncio.Runner() as runner:
        runner.run(start_and_stop())
    groups = Path("/sys/fs/cgroup").glob(f"**/agentrl-{process.pid}-*")
    assert list(groups) == []


@pytest.mark.docker
def test_abandoned_containers_are_reaped_and_owned_ones_kept(backend: str, client: Any) -> None:
    if backend != "docker":
        pytest.skip("docker only")
    from agentrl.sandbox.image import default_tag

    owners = {
        "dead": Labels(owner=Owner(pid=2**22 - 1, start=1), expires_at=time.time() + 999),
        "expired": Labels(owner=Owner.myself(), expires_at=time.time() - 1),
        "alive": Labels(owner=Owner.myself(), expires_at=time.time() + 999),
        "elsewhere": Labels(
            owner=Owner(pid=1, start=1), expires_at=time.time() + 999, host="another-machine"
        ),
    }
    ids = {}
    for name, labels in owners.items():
        created = client.api.create_container(
            default_tag(), command=["python3"], labels=labels.as_dict()
        )
        ids[name] = created["Id"]
    try:
        removed = set(reap(client))
        gone = {name for name, full in ids.items() if full[:12] in removed}
        assert gone == {"dead", "expired"}
    finally:
        for name in ("alive", "elsewhere"):
            client.api.remove_container(ids[name], force=True)
