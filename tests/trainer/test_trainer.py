import errno
import json
from pathlib import Path
from typing import Any

import pytest

from agentrl.engines.transformers import TransformersEngine
from agentrl.errors import ConfigError, EngineError, NotReadyError, RunError
from agentrl.learner.models import Model
from agentrl.runs import checkpoint
from agentrl.trainer.trainer import Trainer

FAILING_TOOL = """
from agentrl import BaseTool, InfraError
class Broken(BaseTool):
    async def execute(self, instance_id, parameters, **kwargs):
        raise InfraError("never reached")
    async def create(self, instance_id=None, **kwargs):
        raise InfraError("the backend is gone")
"""


def test_a_run_records_metrics_under_the_fields_names(make_config: Any) -> None:
    config = make_config(eval={"samples": 3})
    result = Trainer(config).train()
    rows = [
        json.loads(line) for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()
    ]
    assert [(row["phase"], row["step"]) for row in rows] == [
        ("eval", 0), ("train", 1), ("train", 2), ("train", 3), ("eval", 3),
    ]  # fmt: skip
    expected = {
        "actor/lr", "critic/rewards/mean", "critic/advantages/mean", "response_length/mean",
        "num_turns/mean", "tool_call_counts/mean", "perf/throughput", "timing_s/step",
        "frac_reward_zero_std",
    }  # fmt: skip
    assert expected <= set(rows[1])
    assert result.success_before == rows[0]["eval/success"]
    assert result.success_after == rows[-1]["eval/success"]


def test_steps_of_nothing_but_failures_stop_the_run_with_the_error(
    make_config: Any, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(FAILING_TOOL)
    schema = {"type": "function", "function": {"name": "broken"}}
    tool = {"class_name": f"{tmp_path / 'broken.py'}:Broken", "tool_schema": schema}
    config = make_config(
        tools=[tool], train={"steps": 9, "prompts_per_step": 1, "max_empty_steps": 2}
    )
    with pytest.raises(RunError, match=r"2 steps in a row.*the backend is gone"):
        Trainer(config).train()


def test_sft_without_demonstrations_is_refused(make_config: Any) -> None:
    with pytest.raises(ConfigError, match="no demonstrations"):
        Trainer(make_config(sft={"steps": 2})).train()


def test_a_save_that_fails_leaves_the_previous_checkpoint(
    make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(checkpoint={"every": 1, "keep": 3})
    save, calls = Model.save, []

    def full_at_the_third(self: Model, folder: Path) -> None:
        calls.append(folder)
        save(self, folder)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Model, "save", full_at_the_third)
    with pytest.raises(NotReadyError, match="the disk is full"):
        Trainer(config).train()
    checkpoints = config.run_dir / "checkpoints"
    assert sorted(p.name for p in checkpoints.iterdir()) == ["step-1", "step-2"]
    assert (config.run_dir / "latest").read_text().strip() == "step-2"


def test_only_the_newest_checkpoints_are_kept(make_config: Any) -> None:
    config = make_config(checkpoint={"every": 1, "keep": 2})
    Trainer(config).train()
    kept = sorted(p.name for p in (config.run_dir / "checkpoints").iterdir())
    assert kept == ["step-2", "step-3"]


def test_a_torn_trainer_state_is_one_error(make_config: Any) -> None:
    config = make_config()
    Trainer(config).train()
    state = config.run_dir / "checkpoints" / "step-3" / checkpoint.STATE_FILE
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(ConfigError, match="cannot be read"):
        Trainer(config, resume=True).train()


def test_a_device_that_is_not_there_is_named(make_config: Any, tiny_policy: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.device 'warp'"):
        Trainer(make_config(model={"builder": tiny_policy, "device": "warp"})).train()


def test_a_row_without_a_prompt_is_named_before_anything_is_written(
    make_config: Any, tmp_path: Path
) -> None:
    config = make_config()
    (tmp_path / "rows.jsonl").write_text('{"prompt": "fine"}\n{"question": "why?"}\n')
    with pytest.raises(ConfigError, match=r"no `prompt`.*question"):
        Trainer(config)
    assert not config.run_dir.exists()


def test_a_task_without_training_samples_is_refused(make_config: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text(
        "from agentrl.data.file_task import FileTask\n"
        "class Empty(FileTask):\n"
        "    def samples(self, split):\n"
        "        return []\n"
    )
    with pytest.raises(ConfigError, match=r"Empty\.samples\('train'\) is empty"):
        Trainer(make_config(task={"class_name": f"{tmp_path / 'empty.py'}:Empty"}))


def test_a_chat_endpoint_cannot_be_trained_with(make_config: Any) -> None:
    config = make_config(engine={"type": "http", "urls": ["http://a"], "api": "openai_chat"})
    with pytest.raises(ConfigError, match="a chat endpoint gives no token ids"):
        Trainer(config)


def test_overlap_needs_an_engine_with_weights_of_its_own(make_config: Any) -> None:
    config = make_config(rollout={"group_size": 4, "max_staleness": 1})
    with pytest.raises(ConfigError, match=r"rollout\.max_staleness=1 needs an engine with weights"):
        Trainer(config)


def test_an_evaluation_without_a_finished_episode_stops_the_run(
    make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*words: Any, **options: Any) -> None:
        raise EngineError("the engine is gone")

    monkeypatch.setattr(TransformersEngine, "generate", fail)
    trainer = Trainer(make_config(eval={"samples": 2}))
    with pytest.raises(RunError, match=r"eval0: none of \d episodes .* the engine is gone"):
        trainer.train()
    assert trainer.progress.success == {}
