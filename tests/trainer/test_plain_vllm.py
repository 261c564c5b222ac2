"""A training run against a vLLM server in whose environment agentrl cannot be imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from vllm_support import environment_without_agentrl, plain_server, require_vllm

from agentrl.plugins.reference import load_plugin

require_vllm()
pytestmark = [pytest.mark.vllm, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("words", [["--enable-scale-out"], []], ids=["tokens", "completions"])
def test_a_plain_server_serves_a_training_run(tmp_path: Path, words: list[str]) -> None:
    model, tokenizer = load_plugin(f"{ROOT}/tasks/calculator/policy.py:build")(1)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    python = environment_without_agentrl(tmp_path / "environment")
    with plain_server(python, tmp_path / "model", tmp_path / "log", *words) as url:
        command = [
            sys.executable, "-m", "agentrl", "train", "tasks/calculator/train.yaml",
            "engine.type=http", f"engine.urls=[{url}]", "engine.parity.tolerance=1e-3",
            "sft.steps=20", "train.steps=2", "train.prompts_per_step=4", "rollout.group_size=4",
            "eval.samples=8", f"output_dir={tmp_path}", "name=plain",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "plain" / "metrics.jsonl").read_text().splitlines()
    steps = [m for m in map(json.loads, lines) if m["phase"] == "train"]
    assert [m["step"] for m in steps] == [1, 2]
    assert all(m["engine/parity"] <= 1e-3 for m in steps)
    asked = (tmp_path / "log").read_text()
    assert ("POST /inference/v1/generate" in asked) == bool(words)
    assert ("POST /v1/completions" in asked) != bool(words)
