"""Whatever stops a run, its trajectories and the evidence are on disk, and the screen knew."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agentrl.cli.logs import log_to_file
from agentrl.errors import RunError
from agentrl.learner.learner import Learner
from agentrl.runs.reporter import Reporter
from agentrl.traces.store import read_traces
from agentrl.trainer.trainer import Trainer

FAILING_TOOL = """
from agentrl import BaseTool
class Broken(BaseTool):
    async def execute(self, instance_id, parameters, **kwargs):
        raise AssertionError("never reached")
    async def create(self, instance_id=None, **kwargs):
        raise KeyError("no such backend")
"""


class Notes(Reporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def broken(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "broken.py").write_text(FAILING_TOOL)
    schema = {"type": "function", "function": {"name": "broken"}}
    return {"class_name": f"{tmp_path / 'broken.py'}:Broken", "tool_schema": schema}


def recorded(run: Path, split: str = "train") -> list[tuple[int, str, int]]:
    traces = read_traces(run / "traces" / f"{split}.jsonl.gz")
    return [(t.step, t.fate, len(t.group.trajectories)) for t in traces]


def test_a_run_stopped_by_a_loss_that_is_no_number_has_every_trajectory_on_disk(
    make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = Learner.update

    def not_a_number(self: Learner, step: int, samples: Sequence[Any]) -> dict[str, float]:
        if step == 2:
            raise RunError("the loss is nan")
        return learn(self, step, samples)

    monkeypatch.setattr(Learner, "update", not_a_number)
    config = make_config()
    with pytest.raises(RunError, match="the loss is nan"):
        Trainer(config).train()
    assert recorded(config.run_dir) == [(step, "trained", 4) for step in (1, 1, 2, 2)]


def test_a_run_whose_steps_are_all_dropped_has_every_trajectory_with_its_traceback(
    make_config: Any, broken: dict[str, Any]
) -> None:
    config = make_config(
        tools=[broken], train={"steps": 9, "prompts_per_step": 1, "max_empty_steps": 2}
    )
    notes = Notes()
    with (
        log_to_file(config.run_dir / "log.jsonl"),
        pytest.raises(RunError, match=r"2 steps in a row.*no such backend"),
    ):
        logging.getLogger("agentrl").setLevel(logging.INFO)
        Trainer(config, reporter=notes).train()
    assert recorded(config.run_dir) == [(1, "trained", 4), (2, "trained", 4)]
    traces = list(read_traces(config.run_dir / "traces" / "train.jsonl.gz"))
    for trajectory in traces[-1].group.trajectories:
        assert trajectory.failure is not None
        assert (trajectory.failure.kind, trajectory.failure.type) == ("PluginError", "KeyError")
        assert 'raise KeyError("no such backend")' in trajectory.failure.traceback
    # Eight failed alike: one is shown.
    assert [n for n in notes.notes if n.startswith("first")] == [
        "first PluginError (KeyError): tool 'broken' create: KeyError: 'no such backend' "
        "[traceback: log.jsonl]"
    ]
    log = [json.loads(line) for line in (config.run_dir / "log.jsonl").read_text().splitlines()]
    [line] = [entry for entry in log if entry["message"].startswith("first PluginError")]
    assert "no such backend" in line["traceback"]
    rows = [json.loads(x) for x in (config.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["failures/PluginError"] == 4


def test_evaluations_are_recorded_too(make_config: Any) -> None:
    config = make_config(eval={"samples": 2})
    Trainer(config).train()
    assert recorded(config.run_dir, "eval") == [(0, "eval", 1)] * 2 + [(3, "eval", 1)] * 2


def test_what_is_logged_before_the_run_has_its_folder_is_in_its_log(tmp_path: Path) -> None:
    logger = logging.getLogger("agentrl.test")
    logger.setLevel(logging.INFO)
    log = tmp_path / "run" / "log.jsonl"
    with log_to_file(log):
        logger.info("early")
        log.parent.mkdir()
        logger.info("late")
    messages = [json.loads(line)["message"] for line in log.read_text().splitlines()]
    assert messages == ["early", "late"]
