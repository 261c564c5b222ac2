import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentrl.config.run import RunConfig
from agentrl.errors import ConfigError
from agentrl.runs.folder import RunFolder
from agentrl.trainer.trainer import Trainer


def tree(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(mode="json")


def test_a_folder_that_holds_a_run_is_not_written_into(make_config: Any) -> None:
    config = make_config()
    Trainer(config).train()
    before = {path: path.read_bytes() for path in config.run_dir.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"holds a run already.*--resume"):
        Trainer(config)
    assert {p: p.read_bytes() for p in config.run_dir.rglob("*") if p.is_file()} == before


def test_a_run_that_never_took_a_step_does_not_block_its_folder(make_config: Any) -> None:
    with RunFolder(make_config().run_dir).opened({}, resume=False):
        pass
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
    folder = RunFolder(config.run_dir)
    with folder.opened(tree(config), resume=False):
        folder.record_metrics(1, "train", {"x": 1.0})
    folder.check(tree(make_config(**section)), resume=True)


def test_records_are_cut_to_the_lengths_remembered(make_config: Any) -> None:
    config = make_config()
    folder = RunFolder(config.run_dir)
    traces = config.run_dir / "traces"
    with folder.opened(tree(config), resume=False):
        traces.mkdir()
        (traces / "train").write_text("one")
        folder.record_metrics(1, "train", {"x": 1.0})
        sizes = folder.state_dict()
        folder.record_metrics(2, "train", {"x": 2.0})
        (traces / "train").write_text("one and two")
        (traces / "eval").write_text("later")
        folder.load_state_dict(sizes)
    lines = (config.run_dir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1]
    assert (traces / "train").read_text() == "one"
    assert not (traces / "eval").exists()


def test_records_of_a_step_count_once_it_has_come_to_its_end(make_config: Any) -> None:
    config = make_config()
    folder = RunFolder(config.run_dir)
    with folder.opened(tree(config), resume=False):
        before = folder.state_dict()
        folder.hold()
        folder.record_metrics(1, "train", {"x": 1.0})
        assert folder.state_dict() == before
        folder.release()
        assert folder.state_dict()["metrics.jsonl"] > 0


def test_a_second_writer_is_refused_and_told_who_writes(make_config: Any) -> None:
    config = make_config()
    folder = RunFolder(config.run_dir)
    with (
        folder.opened(tree(config), resume=False),
        pytest.raises(ConfigError, match=rf"process {os.getpid()} is writing into it"),
        RunFolder(config.run_dir).opened(tree(config), resume=True),
    ):
        pass
    with RunFolder(config.run_dir).opened(tree(config), resume=True):
        pass


def test_a_killed_writer_leaves_no_lock_even_if_its_child_lives(make_config: Any) -> None:
    config = make_config()
    code = (
        "import multiprocessing, os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from agentrl.runs.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).opened({}, resume=False):\n"
        "    fork = multiprocessing.get_context('fork')\n"
        "    begun = fork.Event()\n"
        "    child = fork.Process(target=lambda: (begun.set(), time.sleep(60)))\n"
        "    child.start()\n"
        "    begun.wait()\n"
        "    print(child.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    words = [sys.executable, "-c", code, str(config.run_dir)]
    killed = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    child = int(killed.stdout.readline())
    assert killed.wait() == -signal.SIGKILL
    try:
        with RunFolder(config.run_dir).opened({}, resume=False):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        killed.stdout.close()


def test_a_saved_configuration_that_is_no_longer_yaml_is_named(make_config: Any) -> None:
    config = make_config()
    folder = RunFolder(config.run_dir)
    with folder.opened(tree(config), resume=False):
        folder.record_metrics(1, "train", {})
    for text in ("a: [", "", "7"):
        (config.run_dir / "config.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"config\.yaml"):
            folder.check(tree(config), resume=True)


def test_the_records_of_an_attempt_without_a_checkpoint_are_kept_aside(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.set_aside() is None
    (folder.path / "traces").mkdir(parents=True)
    (folder.path / "traces" / "train.jsonl.gz").write_bytes(b"evidence")
    aside = folder.set_aside()
    assert aside == folder.path / "earlier-1"
    assert (aside / "traces" / "train.jsonl.gz").read_bytes() == b"evidence"
    assert folder.state_dict() == {}
    folder.record_metrics(1, "train", {})
    assert folder.set_aside() == folder.path / "earlier-2"
