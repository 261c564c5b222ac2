import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentrl.config.run import RunConfig
from agentrl.traces.store import read_traces
from agentrl.trainer.phases import reinforcement
from agentrl.trainer.trainer import Trainer

SCRIPT = """
import signal
import sys
import torch
from agentrl.trainer.trainer import Trainer
# A shell's background jobs ignore it, and so would this process.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
Trainer.from_config(sys.argv[1], sys.argv[2:], resume=True).train()
"""
SFT_STEPS, STEPS = 6, 8


def config_file(config: RunConfig, folder: Path) -> Path:
    """Save a deterministic configuration whose task also has demonstrations."""
    (folder / "task.py").write_text(
        "from agentrl.contracts.task import Demonstration\n"
        "from agentrl.data.file_task import FileTask\n"
        "class Task(FileTask):\n"
        "    def demonstrations(self):\n"
        "        return [Demonstration(messages=[{'role': 'user', 'content': f'say {i}'},\n"
        "            {'role': 'assistant', 'content': str(i) * (1 + i % 3)}]) for i in range(20)]\n"
    )
    tree = config.model_dump(mode="json")
    tree["deterministic"] = True
    tree["task"]["class_name"] = f"{folder / 'task.py'}:Task"
    tree["sft"] = {"steps": SFT_STEPS, "batch_size": 4, "optimizer": {"learning_rate": 1e-3}}
    tree["train"] |= {"steps": STEPS, "epochs_per_step": 2, "minibatches_per_epoch": 2}
    tree["algorithm"]["kl"] = {"coefficient": 0.01}
    tree["eval"] = {"samples": 4, "every": 3}
    tree["checkpoint"] = {"every": 2, "keep": 2}
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def start(path: Path, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path), *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors.decode()


def metrics(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in row.items() if not k.startswith(("timing_s/", "perf/"))} for row in rows
    ]


def tokens(run: Path) -> list[Any]:
    return [
        [turn.token_ids.tolist() for turn in trajectory.turns]
        for trace in read_traces(run / "traces" / "train.jsonl.gz")
        for trajectory in trace.group.trajectories
    ]


def wait_for_lines(run: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a run has recorded so many lines of metrics."""
    file = run / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not file.exists() or file.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_run_killed_at_random_moments_equals_one_that_was_not(
    make_config: Any, tmp_path: Path
) -> None:
    path = config_file(make_config(), tmp_path)
    finish(start(path, "name=whole"))
    rng = random.Random(os.urandom(8))
    # Once in SFT, then twice in GRPO; each time a little after a random line was written.
    moments = [rng.randint(1, SFT_STEPS - 1), *sorted(rng.sample(range(8, 14), 2))]
    for lines in moments:
        process = start(path, "name=killed")
        wait_for_lines(tmp_path / "runs" / "killed", lines, process)
        time.sleep(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(start(path, "name=killed"))
    one, other = tmp_path / "runs" / "whole", tmp_path / "runs" / "killed"
    assert metrics(other) == metrics(one), f"killed after lines {moments}"
    assert tokens(other) == tokens(one)
    assert len(metrics(one)) == SFT_STEPS + STEPS + 4


def test_an_interrupt_checkpoints_the_last_step_and_the_run_goes_on(
    make_config: Any, tmp_path: Path
) -> None:
    path = config_file(make_config(), tmp_path)
    run = tmp_path / "runs" / "tiny"
    process = start(path, "checkpoint.every=0")
    wait_for_lines(run, SFT_STEPS + 4, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in errors
    step = metrics(run)[-1]["step"]
    assert (run / "latest").read_text().strip() == f"step-{step}"
    result = Trainer.from_config(path, ["checkpoint.every=0"], resume=True).train()
    assert result.steps == metrics(run)[-1]["step"] == STEPS


def test_more_steps_can_be_added_to_a_finished_run(make_config: Any) -> None:
    assert Trainer(make_config()).train().steps == 3
    longer = make_config(train={"steps": 5, "prompts_per_step": 2})
    assert Trainer(longer, resume=True).train().steps == 5


def test_resume_without_a_run_starts_one(make_config: Any) -> None:
    assert Trainer(make_config(), resume=True).train().steps == 3


@pytest.mark.parametrize("step", [1, 3])
def test_a_checkpoint_is_a_hugging_face_folder(make_config: Any, step: int) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = make_config(checkpoint={"every": 1, "keep": 5})
    Trainer(config).train()
    folder = config.run_dir / "checkpoints" / f"step-{step}"
    assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 0
    assert AutoTokenizer.from_pretrained(folder).chat_template


async def test_the_last_checkpoint_holds_the_weights_that_were_trained(make_config: Any) -> None:
    from transformers import AutoModelForCausalLM

    config = make_config()
    trainer = Trainer(config)
    async with trainer.opened() as session:
        await reinforcement.run(session, 3)
        live = session.policy.model.model.state_dict()
    saved = AutoModelForCausalLM.from_pretrained(config.run_dir / "checkpoints" / "step-3")
    assert all(value.equal(live[name]) for name, value in saved.state_dict().items())
