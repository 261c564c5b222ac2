"""A cancellation at any recorded moment, then a resume: the run equals one left alone."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agentrl.config.run import RunConfig
from agentrl.runs.reporter import Reporter
from agentrl.traces.store import read_traces
from agentrl.trainer.trainer import Trainer

SFT_STEPS, STEPS = 2, 3
TASK = """
from agentrl.contracts.task import Demonstration
from agentrl.data.file_task import FileTask
class Task(FileTask):
    def demonstrations(self):
        return [Demonstration(messages=[{'role': 'user', 'content': f'say {i}'},
            {'role': 'assistant', 'content': str(i) * (1 + i % 3)}]) for i in range(7)]
"""


class Interrupter(Reporter):
    """Cancels the run when it hears of its n-th event."""

    def __init__(self, at: int | None = None) -> None:
        self.events: list[str] = []
        self._at = at

    def _hear(self, event: str) -> None:
        self.events.append(event)
        if len(self.events) - 1 == self._at:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

    def phase_started(self, name: str, total: int | None) -> None:
        self._hear(f"{name} started")

    def step_finished(self, step: int, metrics: Mapping[str, float]) -> None:
        self._hear(f"step {step}")

    def phase_ended(self, name: str, summary: Mapping[str, float]) -> None:
        self._hear(f"{name} ended")


def tokens(run: Path) -> list[Any]:
    return [
        [turn.token_ids.tolist() for turn in trajectory.turns]
        for trace in read_traces(run / "traces" / "train.jsonl.gz")
        for trajectory in trace.group.trajectories
    ]


def records(run: Path) -> tuple[list[Any], list[Any]]:
    """Return all metrics but times and speeds, and every sampled token."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    metrics = [
        {k: v for k, v in row.items() if not k.startswith(("timing_s/", "perf/"))} for row in rows
    ]
    return metrics, tokens(run)


def test_an_interrupt_at_any_event_and_a_resume_change_no_number(
    make_config: Any, tmp_path: Path
) -> None:
    def config(name: str) -> RunConfig:
        made: RunConfig = make_config(
            name=name,
            deterministic=True,
            task={
                "class_name": f"{task}:Task",
                "train": str(tmp_path / "rows.jsonl"),
                "test": str(tmp_path / "rows.jsonl"),
            },
            sft={"steps": SFT_STEPS, "batch_size": 4, "optimizer": {"learning_rate": 1e-3}},
            train={"steps": STEPS, "prompts_per_step": 2, "minibatches_per_epoch": 2},
            algorithm={"kl": {"coefficient": 0.01}},
            rollout={"group_size": 4, "max_response_tokens": 6},
            eval={"samples": 1, "every": 2},
            checkpoint={"every": 0, "keep": 1},
        )
        return made

    task = tmp_path / "task.py"
    task.write_text(TASK)
    heard = Interrupter()
    Trainer(config("whole"), reporter=heard).train()
    expected = records(tmp_path / "runs" / "whole")
    for at in range(len(heard.events)):
        with pytest.raises(KeyboardInterrupt):
            Trainer(config(f"cut{at}"), reporter=Interrupter(at)).train()
        result = Trainer(config(f"cut{at}"), resume=True).train()
        assert result.steps == STEPS
        assert records(tmp_path / "runs" / f"cut{at}") == expected, heard.events[at]
