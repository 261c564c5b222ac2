from typing import Any

import numpy as np
import pytest
import torch
from learner_support import CPU, tiny_model

from agentrl.algorithms.samples import TrainSample
from agentrl.config.train import SFTOptimizerConfig
from agentrl.contracts.task import Demonstration
from agentrl.errors import ConfigError
from agentrl.learner.batch import Streams
from agentrl.learner.imitation import imitate, render_demonstrations
from agentrl.learner.models import Model
from agentrl.learner.optimizer import Optimizer
from agentrl.learner.scores import score
from agentrl.templates.render import Renderer


def dialogue(answer: str) -> Demonstration:
    return Demonstration(
        messages=[
            {"role": "user", "content": "question"},
            {"role": "assistant", "content": answer},
            {"role": "user", "content": "sure?"},
            {"role": "assistant", "content": "yes"},
        ]
    )


def make_policy(tiny_policy: str, *, packed: bool = True) -> tuple[Model, Optimizer]:
    policy = tiny_model(tiny_policy, packed=packed)
    return policy, Optimizer(policy.model, SFTOptimizerConfig(learning_rate=1e-2), total_steps=30)


def samples(renderer: Renderer) -> list[TrainSample]:
    demonstrations = [dialogue("a"), dialogue("bb"), dialogue("ccc" * 5)]
    return render_demonstrations(demonstrations, renderer, {}, max_length=500)


def test_only_what_the_assistant_wrote_is_learned(renderer: Renderer, tokenizer: Any) -> None:
    (one,) = render_demonstrations([dialogue("ping")], renderer, {}, max_length=500)
    learned = [i for i, m in zip(one.token_ids, one.loss_mask, strict=True) if m]
    assert tokenizer.decode(learned) == "ping<|end|>yes<|end|>"


def test_the_loss_is_the_mean_over_assistant_tokens_however_the_batch_is_cut(
    renderer: Renderer, tiny_policy: str
) -> None:
    batch = samples(renderer)
    losses, weights = [], []
    for max_tokens, packed in ((100_000, True), (100_000, False), (1, True)):
        policy, optimizer = make_policy(tiny_policy, packed=packed)
        rows = Streams.of(batch).batch(np.arange(3), packed=False, device=CPU)
        with torch.no_grad():
            logprobs_RT = score(policy.model, rows, temperature=1.0).logprobs_RT
        expected = -float(logprobs_RT[rows.loss_mask_RT > 0].mean())
        metrics = imitate(policy, optimizer, batch, max_tokens=max_tokens)
        assert metrics["sft/loss"] == pytest.approx(expected, abs=1e-5)
        losses.append(metrics["sft/grad_norm"])
        weights.append(policy.model.model.embed_tokens.weight.detach())
    for other in (1, 2):
        assert losses[0] == pytest.approx(losses[other], abs=1e-5)
        assert torch.allclose(weights[0], weights[other], atol=1e-4)


def test_imitation_lowers_the_loss(renderer: Renderer, tiny_policy: str) -> None:
    policy, optimizer = make_policy(tiny_policy)
    batch = samples(renderer)
    losses = [imitate(policy, optimizer, batch, max_tokens=9999)["sft/loss"] for _ in range(25)]
    assert losses[-1] < losses[0] / 2


def test_demonstrations_that_are_too_long_are_left_out(renderer: Renderer) -> None:
    both = [dialogue("a"), dialogue("b" * 400)]
    assert len(render_demonstrations(both, renderer, {}, max_length=200)) == 1
    with pytest.raises(ConfigError, match=r"longer than sft\.max_length=5"):
        render_demonstrations(both, renderer, {}, max_length=5)


def test_a_demonstration_of_an_unknown_tool_is_refused(renderer: Renderer) -> None:
    wanting = Demonstration(messages=dialogue("a").messages, tools=["abacus"])
    with pytest.raises(ConfigError, match="abacus"):
        render_demonstrations([wanting], renderer, {}, max_length=100)
