import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what an installed wheel holds."""
    pytest.importorskip("hatchling", reason="the dev extra is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def agentrl(installed: Path, folder: Path, *words: str) -> str:
    code = (
        "import agentrl, os; from agentrl.cli.main import main\n"
        "assert agentrl.__file__.startswith(os.environ['PYTHONPATH']), agentrl.__file__\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_is_typed_and_brings_the_content(installed: Path) -> None:
    assert (installed / "agentrl" / "py.typed").exists()
    shipped = installed / "agentrl" / "_shipped"
    assert {p.name for p in shipped.iterdir()} == {"tools", "interactions", "sandbox", "tasks"}


def test_a_wheels_tools_are_found_from_any_folder(installed: Path, tmp_path: Path) -> None:
    assert "code_interpreter" in agentrl(installed, tmp_path, "tool", "list")


def test_a_wheels_tasks_are_found_from_any_folder(installed: Path, tmp_path: Path) -> None:
    text = agentrl(installed, tmp_path, "config", "show", "tasks/calculator/train.yaml")
    assert "name: calculator" in text


def test_a_wheels_top_level_holds_nothing_but_the_package(installed: Path) -> None:
    names = {p.name for p in installed.iterdir() if not p.name.endswith(".dist-info")}
    assert names == {"agentrl"}
