"""A real policy trains through Qwen3's own template, which drops the thinking of earlier turns."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from public_templates import installed_templates

from agentrl.algorithms.samples import samples_of
from agentrl.config.run import RunConfig
from agentrl.traces.store import read_traces
from agentrl.trainer.trainer import Trainer

BUILDER = """
import torch
from public_templates import installed_templates, tokenizer_for
from transformers import LlamaConfig, LlamaForCausalLM

def build(seed):
    tokenizer = tokenizer_for(installed_templates()["trl/qwen3"])
    tokenizer.chat_template = installed_templates()["trl/qwen3"]
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
    )
    return LlamaForCausalLM(config), tokenizer
"""
TASK = """
from agentrl import BaseInteraction, BaseTask, Demonstration, Sample

def user(text):
    return {"role": "user", "content": text}

class Thinking(BaseTask):
    def samples(self, split):
        return [Sample(prompt=[user("go")], index=i) for i in range(4)]

    async def score(self, trajectory, services):
        return float(trajectory.seed % 2)

    def demonstrations(self):
        said = {"role": "assistant", "content": "<think>\\nhm\\n</think>\\n\\nno"}
        return [Demonstration(messages=[user("go"), said, user("again"), said])] * 4

class Again(BaseInteraction):
    async def generate_response(self, instance_id, messages, **kwargs):
        return False, "again", 0.0, {}
"""


def test_a_policy_that_thinks_trains_through_the_template_that_forgets(
    tmp_path: Path, make_config: Callable[..., RunConfig]
) -> None:
    if "trl/qwen3" not in installed_templates():
        pytest.skip("trl is not installed: Qwen3's own template is not at hand")
    (tmp_path / "policy.py").write_text(BUILDER)
    (tmp_path / "thinking.py").write_text(TASK)
    config = make_config(
        model={"builder": f"{tmp_path}/policy.py:build", "dtype": "float32", "device": "cpu"},
        task={"class_name": f"{tmp_path}/thinking.py:Thinking"},
        rewards=[{"type": "task"}],
        interaction=[{"class_name": f"{tmp_path}/thinking.py:Again", "name": "again"}],
        rollout={
            "group_size": 4,
            "max_response_tokens": 200,
            "max_turn_tokens": 40,
            "max_assistant_turns": 3,
        },
        sft={"steps": 60, "batch_size": 4, "optimizer": {"learning_rate": 1e-2}},
    )
    result = Trainer(config).train()
    assert result.steps == 3
    metrics = (config.run_dir / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in metrics.splitlines()]
    steps = [line for line in lines if line["phase"] == "train"]
    assert all(line["rollout/branches/mean"] > 1 for line in steps)
    assert all(math.isfinite(line.get("actor/grad_norm", 0.0)) for line in steps)
    assert any(line.get("actor/grad_norm", 0.0) > 0 for line in steps)
    traces = list(read_traces(config.run_dir / "traces" / "train.jsonl.gz"))
    for trajectory in (t for trace in traces for t in trace.group.trajectories):
        sampled = sum(int(turn.mask.sum()) for turn in trajectory.turns)
        assert sum(int(s.loss_mask.sum()) for s in samples_of(trajectory)) == sampled
