"""`agentrl sandbox`, as a user types it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MAIN = "from agentrl.cli.sandbox import app; app()"


def agentrl_sandbox(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", MAIN, *words]
    return subprocess.run(command, input=given, capture_output=True, text=True, env=os.environ)


@pytest.mark.bubblewrap
def test_run_prints_the_output_and_how_it_ended(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("print(input() * 2)")
    done = agentrl_sandbox("run", str(program), "type=bubblewrap", given="ab\n")
    assert (done.returncode, done.stdout) == (0, "abab\n"), done.stderr
    assert "[ok: exit code 0" in done.stderr


@pytest.mark.bubblewrap
def test_run_fails_when_the_program_does(tmp_path: Path) -> None:
    program = tmp_path / "program.sh"
    program.write_text("exit 3")
    done = agentrl_sandbox("run", str(program), "type=bubblewrap")
    assert done.returncode == 1
    assert "[error: exit code 3" in done.stderr


@pytest.mark.docker
def test_prune_says_what_it_removed(backend: str) -> None:
    if backend != "docker":
        pytest.skip("docker only")
    done = agentrl_sandbox("prune")
    assert done.returncode == 0, done.stderr
    assert "containers and" in done.stdout
