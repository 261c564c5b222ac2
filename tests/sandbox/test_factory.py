"""Which sandbox is opened, and the one clear error when none can be."""

import shutil
import tempfile
import venv
from typing import Any

import pytest

from agentrl.config.sandbox import (
    AutoSandboxConfig,
    BubblewrapSandboxConfig,
    DockerSandboxConfig,
    LocalSandboxConfig,
)
from agentrl.contracts.sandbox import RunRequest, RunStatus
from agentrl.errors import NotReadyError
from agentrl.sandbox import open_sandbox


async def test_local_refuses_unless_asked_for_as_unsafe() -> None:
    with pytest.raises(NotReadyError, match=r"sandbox\.unsafe=true"):
        async with open_sandbox(LocalSandboxConfig()):
            raise AssertionError


async def test_local_runs_when_asked_for() -> None:
    async with open_sandbox(LocalSandboxConfig(unsafe=True, workers=1)) as sandbox:
        assert "NO isolation" in sandbox.isolation()
        assert (await sandbox.run(RunRequest(code="print(3)"))).stdout == "3\n"
        assert sandbox.executions == 1


async def test_a_missing_bubblewrap_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotReadyError, match="apt-get install bubblewrap"):
        async with open_sandbox(BubblewrapSandboxConfig(workers=1)):
            raise AssertionError


async def test_an_absent_daemon_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    with pytest.raises(NotReadyError, match="no daemon"):
        async with open_sandbox(DockerSandboxConfig(workers=1)):
            raise AssertionError


async def test_auto_fails_with_both_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotReadyError, match=r"(?s)docker: no daemon.*bubblewrap: no `bwrap`"):
        async with open_sandbox(AutoSandboxConfig(workers=1)):
            raise AssertionError


@pytest.mark.bubblewrap
async def test_auto_is_the_first_that_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    async with open_sandbox(AutoSandboxConfig(workers=1)) as sandbox:
        assert sandbox.name == "bubblewrap"
        assert (await sandbox.run(RunRequest(code="print(3)"))).ok


@pytest.mark.bubblewrap
async def test_a_python_below_tmp_runs_programs(config_for: Any) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        venv.create(folder, symlinks=True)
        python = f"{folder}/bin/python"
        config = config_for("bubblewrap", workers=1, bubblewrap={"python": python})
        async with open_sandbox(config) as sandbox:
            code = "import sys; open('/tmp/x', 'w').write('mine'); print(sys.prefix)"
            result = await sandbox.run(RunRequest(code=code))
    assert (result.status, result.stdout.strip()[:11]) == (RunStatus.OK, "/opt/python")
