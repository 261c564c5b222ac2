import json
from typing import Any

import pytest

from agentrl.errors import ConfigError
from agentrl.runs.folder import RunDir
from agentrl.trainer.trainer import Trainer


def test_a_folder_that_holds_a_run_is_not_written_into(make_config: Any) -> None:
    config = make_config()
    Trainer(config).train()
    before = {path: path.read_bytes() for path in config.run_dir.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"holds a run already.*--resume"):
        Trainer(config)
    assert {p: p.read_bytes() for p in config.run_dir.rglob("*") if p.is_file()} == before


def test_a_run_that_never_took_a_step_does_not_block_its_folder(make_config: Any) -> None:
    Trainer(make_config())
    assert Trainer(make_config(seed=5)).train().steps == 3


def test_a_resumed_run_keeps_its_configuration(make_config: Any) -> None:
    Trainer(make_config()).train()
    changed = make_config(optimizer={"learning_rate": 0.5}, seed=9)
    with pytest.raises(ConfigError) as caught:
        Trainer(changed, resume=True)
    message = str(caught.value)
    assert "optimizer.learning_rate: 0.001 -> 0.5" in message
    assert "seed: 0 -> 9" in message


@pytest.mark.parametrize(
    "section",
    [
        {"train": {"steps": 3, "prompts_per_step": 2}},
        {"eval": {"samples": 2, "every": 1}},
        {"checkpoint": {"every": 1, "keep": 1}},
        {"sandbox": {"type": "local", "unsafe": True, "workers": 1}},
    ],
)
def test_what_does_not_alter_past_steps_may_change(
    make_config: Any, section: dict[str, Any]
) -> None:
    config = make_config()
    run = RunDir(config.run_dir)
    run.open(config)
    run.record_metrics(1, "train", {"x": 1.0})
    run.check(make_config(**section), resume=True)


def test_records_are_cut_to_the_lengths_remembered(make_config: Any) -> None:
    config = make_config()
    run = RunDir(config.run_dir)
    run.open(config)
    run.record_metrics(1, "train", {"x": 1.0})
    sizes = run.record_sizes()
    run.record_metrics(2, "train", {"x": 2.0})
    run.record_groups(2, "train", [])
    run.cut_records(sizes)
    lines = (config.run_dir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1]


def test_a_saved_configuration_that_is_no_longer_yaml_is_named(make_config: Any) -> None:
    config = make_config()
    run = RunDir(config.run_dir)
    run.open(config)
    run.record_metrics(1, "train", {})
    for text in ("a: [", "", "7"):
        (config.run_dir / "config.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"config\.yaml"):
            run.check(config, resume=True)
