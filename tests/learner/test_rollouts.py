"""The learner on dialogues that a real engine wrote."""

from typing import Any

import numpy as np
import pytest
import torch
from learner_support import CPU, tiny_model
from tests_support import Adder, FixedTask, Teacher, make_rollout, sample

from agentrl.algorithms.base import Batch
from agentrl.algorithms.grpo import GRPO, GRPOConfig
from agentrl.algorithms.samples import TrainSample, samples_of
from agentrl.config.train import OptimizerConfig, TrainConfig
from agentrl.contracts.trajectory import Group, Trajectory
from agentrl.engines.transformers import TransformersEngine
from agentrl.learner.batch import Streams
from agentrl.learner.learner import Learner
from agentrl.learner.models import Model
from agentrl.learner.optimizer import Optimizer
from agentrl.learner.scores import score
from agentrl.templates.render import Renderer


def odd(trajectory: Trajectory) -> float:
    return float(trajectory.token_ids.sum() % 2)


async def real_groups(model: Any, renderer: Renderer, temperature: float = 1.0) -> list[Group]:
    """Sample multi-turn dialogues (an interaction answers) from the real engine."""
    engine = TransformersEngine(model)
    rollout = make_rollout(
        renderer,
        None,
        Adder(),
        teacher=Teacher("never"),
        task=FixedTask(odd),
        engine=engine,
        config={
            "max_response_tokens": 400,
            "max_assistant_turns": 3,
            "sampling": {"temperature": temperature},
        },
    )
    # An untrained policy seldom stops by itself: raise the stop token's bias through the tie.
    async with rollout:
        groups = [
            await rollout.run_group(sample(), group_id=f"g{i}", size=6, seed=i) for i in range(2)
        ]
    await engine.close()
    return groups


@pytest.fixture
def policy(tiny_policy: str) -> Model:
    policy = tiny_model(tiny_policy)
    with torch.no_grad():
        # Makes the stop token likely, so that untrained dialogues have several turns.
        policy.model.model.embed_tokens.weight[0] *= 12
    return policy


def batch_of(samples: list[TrainSample], *, packed: bool = False) -> Batch:
    return Streams.of(samples).batch(np.arange(len(samples)), packed=packed, device=CPU)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
async def test_the_trainers_logprobs_of_fresh_rollouts_equal_the_engines(
    policy: Model, renderer: Renderer, temperature: float
) -> None:
    groups = await real_groups(policy.model, renderer, temperature)
    trajectories = [t for group in groups for t in group.trajectories]
    assert max(len(t.policy_turns) for t in trajectories) > 1
    batch = batch_of([one for t in trajectories for one in samples_of(t)])
    with torch.no_grad():
        scores = score(policy.model, batch, temperature=temperature)
    gap_RT = (scores.logprobs_RT - batch.old_logprobs_RT).abs() * batch.loss_mask_RT
    assert batch.num_trained > 100
    assert gap_RT.max().item() < 1e-4


async def test_an_update_raises_what_was_rewarded(policy: Model, renderer: Renderer) -> None:
    groups = await real_groups(policy.model, renderer)
    batch = batch_of(list(GRPO(GRPOConfig()).credit(groups)))

    def weighted() -> float:
        with torch.no_grad():
            scores = score(policy.model, batch, temperature=1.0)
        return float((scores.logprobs_RT * batch.advantages_RT).sum())

    before = weighted()
    learner = Learner(
        policy,
        GRPO(GRPOConfig()),
        Optimizer(policy.model, OptimizerConfig(learning_rate=1e-3), total_steps=4),
        TrainConfig(epochs_per_step=2, minibatches_per_epoch=2),
        temperature=1.0,
        seed=0,
    )
    metrics = learner.update(1, learner.credit(1, groups))
    assert weighted() > before
    # Only the first of four minibatches runs on the policy that sampled.
    assert metrics["rollout/logprob_diff/max"] < 1e-4
    assert abs(metrics["actor/ppo_kl"]) > 0
    assert metrics["actor/entropy"] > 0
    assert metrics["actor/grad_norm"] > 0
