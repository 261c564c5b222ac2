"""Packed rows equal one row a sample: losses and gradients, to 1e-6 of their size."""

import logging
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from learner_support import CPU, make_sample
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3NextConfig,
)

from agentrl.learner import attention
from agentrl.learner.attention import attending, packs
from agentrl.learner.batch import Streams, micro_batches
from agentrl.learner.scores import score

SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SPARSE = {"num_experts": 4, "num_experts_per_tok": 2}


def make(config: PretrainedConfig) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def streams() -> Streams:
    random = np.random.default_rng(0)
    samples = []
    for size in (5, 19, 33, 12):
        mask = [0, *(random.random(size - 2) > 0.4).astype(int), 1]
        samples.append(make_sample(random.integers(0, 97, size).tolist(), mask))
    return Streams.of(samples)


def loss_and_gradient(model: Any, *, packed: bool) -> tuple[float, torch.Tensor]:
    """Packed: all samples in a row. Else: one sample a pass."""
    model.zero_grad()
    all_of, total = streams(), 0.0
    limit = 1000 if packed else 1
    with attending(model, packed=packed):
        for part in micro_batches(all_of.lengths_S, np.arange(4), max_tokens=limit, packed=packed):
            batch = all_of.batch(part, packed=packed, device=CPU)
            loss = -score(model, batch, temperature=0.8).logprobs_RT.sum() / 40
            loss.backward()
            total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SHAPE),
        Qwen2Config(**SHAPE),
        Qwen3Config(**SHAPE, head_dim=8),
        MistralConfig(**SHAPE, sliding_window=8),
        Gemma3TextConfig(**SHAPE, head_dim=8, sliding_window=8),
        GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4),
    ],
    ids=lambda config: config.model_type,
)
def test_packed_rows_equal_one_row_a_sample(config: PretrainedConfig) -> None:
    model = make(config)
    assert packs(model)
    loss, gradient = loss_and_gradient(model, packed=True)
    expected_loss, expected = loss_and_gradient(model, packed=False)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert torch.allclose(gradient, expected, atol=1e-6)
    assert model.config._attn_implementation == "sdpa"


def test_recomputed_layers_attend_within_segments_too() -> None:
    model = make(LlamaConfig(**SHAPE))
    loss, expected = loss_and_gradient(model, packed=True)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for layer in model.model.layers:
        layer.training = True
    again, gradient = loss_and_gradient(model, packed=True)
    assert again == loss
    assert torch.allclose(gradient, expected, atol=1e-7)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (Gemma2Config(**SHAPE, head_dim=8), "softcap"),
        (LlamaConfig(**SHAPE, attn_implementation="eager"), "model.attention is eager"),
        (
            Qwen3NextConfig(
                **SHAPE,
                **SPARSE,
                head_dim=8,
                linear_num_value_heads=2,
                linear_num_key_heads=2,
                linear_key_head_dim=8,
                linear_value_head_dim=8,
            ),
            "linear_attention",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value.model_type,
)
def test_a_model_that_cannot_be_packed_says_why(
    config: PretrainedConfig, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert not packs(make(config))
    assert len(caplog.records) == 1
    assert why in caplog.text


def test_a_model_that_looks_across_segments_is_found_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(LlamaConfig(**SHAPE))
    plain = model.forward

    def forgetful(input_ids: torch.Tensor, use_cache: bool, **others: Any) -> Any:
        return plain(input_ids=input_ids, use_cache=use_cache)

    monkeypatch.setattr(attention, "attending", lambda model, packed: nullcontext())
    model.forward = forgetful
    assert not packs(model)
    assert "packed logits differ" in caplog.text
