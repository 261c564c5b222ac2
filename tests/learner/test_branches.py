"""Qwen3's own template, thinking and feedback: learning over branches is learning turn by turn."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from learner_support import CPU, gradient
from public_templates import installed_templates, tokenizer_for
from tests_support import Adder, Teacher, calls, make_rollout, roll, said
from transformers import LlamaConfig, LlamaForCausalLM

from agentrl.algorithms.samples import TrainSample, samples_of
from agentrl.contracts.trajectory import Trajectory, TurnKind
from agentrl.engines.scripted import ScriptedEngine
from agentrl.learner.models import Model
from agentrl.templates.render import Renderer

THOUGHT = "<think>\nhm, two and two\n</think>\n\nwrong"


@pytest.fixture(scope="module")
def template() -> str:
    templates = installed_templates()
    if "trl/qwen3" not in templates:
        pytest.skip("trl is not installed: Qwen3's own template is not at hand")
    return templates["trl/qwen3"]


@pytest.fixture
def policy(template: str) -> Model:
    tokenizer = tokenizer_for(template)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
    )
    return Model(model=LlamaForCausalLM(config).eval(), tokenizer=tokenizer, device=CPU, packs=True)


async def dialogue(renderer: Renderer) -> Trajectory:
    """Think, call, think and answer wrongly twice, be told so, answer rightly."""
    called = {**calls({"a": 1}), "content": "<think>\nI add.\n</think>\n\n"}
    script = said(renderer, called, THOUGHT, THOUGHT, "right")
    engine = ScriptedEngine(script, logprob=-5.0)
    config = {"max_response_tokens": 3000}
    rollout = make_rollout(renderer, [], Adder(), teacher=Teacher(), engine=engine, config=config)
    return await roll(rollout)


def rendered_anew(trajectory: Trajectory, renderer: Renderer) -> list[TrainSample]:
    """Return one sample a policy turn: the template's rendering of what came before, and it."""
    samples = []
    for index, turn in enumerate(trajectory.turns):
        if turn.kind is not TurnKind.POLICY:
            continue
        before = [message for one in trajectory.turns[:index] for message in one.messages]
        prompt = renderer.prompt(before, list(trajectory.tool_schemas))
        nothing = np.zeros(len(prompt), np.float32)
        samples.append(
            TrainSample(
                token_ids=np.concatenate([prompt, turn.token_ids]),
                loss_mask=np.concatenate([nothing.astype(np.uint8), turn.mask]),
                logprobs=np.concatenate([nothing, turn.logprobs]),
                versions=np.concatenate([nothing.astype(np.int32), turn.versions]),
                advantages=np.ones(len(prompt) + len(turn.token_ids), np.float32),
            )
        )
    return samples


async def test_loss_and_gradient_equal_those_of_rendering_every_turn_anew(
    policy: Model, template: str
) -> None:
    renderer = Renderer(policy.tokenizer, chat_template=template)
    trajectory = await dialogue(renderer)
    samples = [
        replace(sample, advantages=np.ones(len(sample.token_ids), np.float32))
        for sample in samples_of(trajectory)
    ]
    turns = rendered_anew(trajectory, renderer)
    assert 1 < len(samples) < len(turns) == 4
    (loss, ours), (whole, theirs) = gradient(policy, samples), gradient(policy, turns)
    assert loss == pytest.approx(whole, rel=1e-6)
    pairs: Any = zip(ours, theirs, strict=True)
    scale = max(gradient.abs().max().item() for gradient in theirs)
    assert max((a - b).abs().max().item() for a, b in pairs) <= 1e-6 * scale
