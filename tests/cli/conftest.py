import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from agentrl.cli.main import app


@pytest.fixture
def agentrl() -> Callable[..., Result]:
    """Run the program in this process."""

    def run(*words: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_policy: str) -> Path:
    """A folder with a tiny policy, data and a configuration that trains in a second."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_policy.partition(":")[0], tmp_path / "tiny.py")
    rows = [{"prompt": f"say {i}", "answer": str(i)} for i in range(4)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "train.jsonl").write_text(lines)
    (tmp_path / "test.jsonl").write_text(lines)
    write_config(tmp_path)
    return tmp_path


def write_config(folder: Path, **changes: object) -> None:
    config: dict[str, object] = {
        "name": "tiny",
        "model": {"builder": "tiny.py:build"},
        "task": {"train": "train.jsonl", "test": "test.jsonl"},
        "rollout": {"group_size": 2, "max_response_tokens": 4},
        "train": {"steps": 1, "prompts_per_step": 1},
        "eval": {"samples": 2},
        **changes,
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture
def configure(project: Path) -> Callable[..., None]:
    """Write the project's configuration with some sections replaced."""
    return lambda **changes: write_config(project, **changes)
