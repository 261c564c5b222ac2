import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentrl.cli.main import app
from agentrl.runs.folder import RunFolder
from agentrl.watch.status import Status, WaitStatus


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def written(folder: Path) -> None:
    wait = WaitStatus(
        resource="engine http://x",
        waiter="step1-0-3",
        remedy="restart it",
        age_s=61.0,
        deadline_s=600,
    )
    Status(
        pid=os.getpid(), time=time.time() - 5, phase="train", step=4, num_waits=3, waits=(wait,)
    ).write(folder)


def test_a_live_run_tells_its_oldest_waits(run: RunFolder) -> None:
    with run.opened({"name": "run"}, resume=False):
        written(run.path)
        shown = CliRunner().invoke(app, ["status", str(run.path)], env={"COLUMNS": "160"})
        assert f"alive (process {os.getpid()}); train, 4 steps; seen 5 s ago" in " ".join(
            shown.output.split()
        )
        assert "61 s" in shown.output
        assert "engine http://x" in shown.output
        assert "restart it" in shown.output
        assert "and 2 more" in shown.output
        data = json.loads(CliRunner().invoke(app, ["status", str(run.path), "--json"]).output)
        assert data["alive"] is True
        assert data["waits"][0]["waiter"] == "step1-0-3"


def test_a_dead_run_is_said_to_be_one(run: RunFolder) -> None:
    with run.opened({"name": "run"}, resume=False):
        written(run.path)
    shown = CliRunner().invoke(app, ["status", str(run.path)])
    assert "not running" in shown.output
    assert "restart it" not in shown.output


def test_what_is_no_run_is_refused(tmp_path: Path, run: RunFolder) -> None:
    shown = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert shown.exit_code == 2
    assert "expected a run's folder" in shown.output
    with run.opened({"name": "run"}, resume=False):
        pass
    assert "no status.json yet" in CliRunner().invoke(app, ["status", str(run.path)]).output
