"""A task that raises is one clear error, with its traceback in the log."""

import logging
from pathlib import Path
from typing import Any

import pytest

from agentrl.errors import ConfigError, RunError
from agentrl.trainer.trainer import Trainer

TASK = """
from agentrl.data.file_task import FileTask
class Faulty(FileTask):
    def {method}(self, *words):
        raise KeyError("boom")
"""


@pytest.fixture
def faulty(tmp_path: Path, make_config: Any) -> Any:
    """Make a run whose task raises in one method."""

    def make(method: str, **sections: Any) -> Any:
        path = tmp_path / f"{method}.py"
        path.write_text(TASK.format(method=method))
        rows = str(tmp_path / "rows.jsonl")
        task = {"class_name": f"{path}:Faulty", "train": rows, "test": rows}
        return make_config(task=task, **sections)

    return make


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(record.exc_info) for record in caplog.records if record.exc_info]


def test_samples_that_raise_are_one_error(faulty: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agentrl")
    with pytest.raises(ConfigError, match=r"Faulty\.samples\('train'\): KeyError: 'boom'"):
        Trainer(faulty("samples"))
    assert any("ConfigError" in text for text in tracebacks(caplog))


def test_demonstrations_that_raise_are_one_error(faulty: Any) -> None:
    with pytest.raises(ConfigError, match=r"Faulty\.demonstrations\(\): KeyError: 'boom'"):
        Trainer(faulty("demonstrations", sft={"steps": 1})).train()


@pytest.mark.parametrize("samples", [0, 2])
def test_a_success_that_cannot_be_told_stops_the_run_with_a_checkpoint(
    faulty: Any, samples: int
) -> None:
    config = faulty("succeeded", eval={"samples": samples})
    with pytest.raises(RunError, match=r"Faulty\.succeeded: KeyError: 'boom'.*--resume"):
        Trainer(config).train()
    assert (config.run_dir / "latest").read_text().strip() == "step-0"
