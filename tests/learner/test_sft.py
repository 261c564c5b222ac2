from typing import Any

import pytest
import torch

from agentrl.config.train import SFTOptimizerConfig
from agentrl.contracts.task import Demonstration
from agentrl.errors import ConfigError
from agentrl.learner.batch import TrainSequence, collate
from agentrl.learner.models import Policy
from agentrl.learner.optimizer import Optimizer
from agentrl.learner.scores import token_logprobs
from agentrl.learner.sft import render_demonstrations, sft_step
from agentrl.plugins.reference import load_plugin
from agentrl.rollout.render import Renderer

CPU = torch.device("cpu")


def dialogue(answer: str) -> Demonstration:
    return Demonstration(
        messages=[
            {"role": "user", "content": "question"},
            {"role": "assistant", "content": answer},
            {"role": "user", "content": "sure?"},
            {"role": "assistant", "content": "yes"},
        ]
    )


def make_policy(tiny_policy: str) -> tuple[Policy, Optimizer]:
    model, tokenizer = load_plugin(tiny_policy)(0)
    policy = Policy(model=model, tokenizer=tokenizer, device=CPU)
    return policy, Optimizer(model, SFTOptimizerConfig(learning_rate=1e-2), total_steps=30)


def sequences(renderer: Renderer) -> list[TrainSequence]:
    demonstrations = [dialogue("a"), dialogue("bb"), dialogue("ccc" * 5)]
    return render_demonstrations(demonstrations, renderer, {}, max_length=500)


def test_only_what_the_assistant_wrote_is_learned(renderer: Renderer, tokenizer: Any) -> None:
    (one,) = render_demonstrations([dialogue("ping")], renderer, {}, max_length=500)
    learned = [i for i, m in zip(one.token_ids, one.mask, strict=True) if m]
    assert tokenizer.decode(learned) == "ping<|end|>yes<|end|>"


def test_the_loss_is_the_mean_over_assistant_tokens_however_the_batch_is_cut(
    renderer: Renderer, tiny_policy: str
) -> None:
    batch = sequences(renderer)
    losses, weights = [], []
    for max_tokens in (100_000, 1):
        policy, optimizer = make_policy(tiny_policy)
        rows = collate(batch, CPU)
        with torch.no_grad():
            logprobs_BT, _ = token_logprobs(policy.model, rows, temperature=1.0)
        expected = -float(logprobs_BT[rows.mask_BT > 0].mean())
        metrics = sft_step(policy, optimizer, batch, max_tokens=max_tokens)
        assert metrics["sft/loss"] == pytest.approx(expected, abs=1e-5)
        losses.append(metrics["sft/grad_norm"])
        weights.append(policy.model.model.embed_tokens.weight.detach())
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert torch.allclose(weights[0], weights[1], atol=1e-4)


def test_imitation_lowers_the_loss(renderer: Renderer, tiny_policy: str) -> None:
    policy, optimizer = make_policy(tiny_policy)
    batch = sequences(renderer)
    losses = [sft_step(policy, optimizer, batch, max_tokens=9999)["sft/loss"] for _ in range(25)]
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
