from typing import Any

import pytest
import torch
from tests_support import Adder, FixedTask, Teacher, make_rollout, sample

from agentrl.algorithms.base import LossInputs, MinibatchTotals
from agentrl.algorithms.grpo import GRPO
from agentrl.config.train import GRPOConfig, OptimizerConfig, TrainConfig
from agentrl.contracts.trajectory import Group, Trajectory
from agentrl.engines.transformers import TransformersEngine
from agentrl.learner.batch import TrainSequence, collate, micro_batches
from agentrl.learner.models import Policy
from agentrl.learner.optimizer import Optimizer
from agentrl.learner.scores import token_logprobs
from agentrl.learner.update import Updater
from agentrl.plugins.reference import load_plugin
from agentrl.rollout.render import Renderer

CPU = torch.device("cpu")


def odd(trajectory: Trajectory) -> float:
    return float(sum(trajectory.token_ids) % 2)


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
def policy(tiny_policy: str) -> Policy:
    model, tokenizer = load_plugin(tiny_policy)(0)
    with torch.no_grad():
        # Makes the stop token likely, so that untrained dialogues have several turns.
        model.model.embed_tokens.weight[0] *= 12
    return Policy(model=model, tokenizer=tokenizer, device=CPU)


def sequence(trajectory: Trajectory, advantage: float = 1.0) -> TrainSequence:
    return TrainSequence(
        token_ids=tuple(trajectory.token_ids),
        mask=tuple(trajectory.response_mask),
        old_logprobs=tuple(trajectory.logprobs),
        advantage=advantage,
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
async def test_the_trainers_logprobs_of_fresh_rollouts_equal_the_engines(
    policy: Policy, renderer: Renderer, temperature: float
) -> None:
    groups = await real_groups(policy.model, renderer, temperature)
    trajectories = [t for group in groups for t in group.trajectories]
    assert max(len(t.policy_turns) for t in trajectories) > 1
    batch = collate([sequence(t) for t in trajectories], CPU)
    with torch.no_grad():
        logprobs_BT, _ = token_logprobs(policy.model, batch, temperature=temperature)
    gap_BT = (logprobs_BT - batch.old_logprobs_BT).abs() * batch.mask_BT
    assert batch.mask_BT.sum() > 100
    assert gap_BT.max().item() < 1e-4


def gradient(
    policy: Policy, sequences: list[TrainSequence], max_tokens: int = 100_000
) -> tuple[float, list[torch.Tensor]]:
    policy.model.zero_grad()
    algorithm = GRPO(GRPOConfig())
    total = 0.0
    totals = MinibatchTotals(
        num_tokens=sum(s.num_trained for s in sequences), num_sequences=len(sequences)
    )
    for rows in micro_batches(sequences, max_tokens=max_tokens):
        batch = collate(rows, CPU)
        logprobs_BT, _ = token_logprobs(policy.model, batch, temperature=1.0)
        loss, _ = algorithm.compute_loss(
            logprobs_BT,
            LossInputs(
                response_mask_BT=batch.mask_BT,
                old_logprobs_BT=batch.old_logprobs_BT,
                advantages_BT=batch.advantages_BT,
            ),
            totals,
        )
        loss.backward()
        total += loss.item()
    return total, [p.grad.clone() for p in policy.model.parameters()]


async def test_the_gradient_does_not_depend_on_the_micro_batches(
    policy: Policy, renderer: Renderer
) -> None:
    groups = await real_groups(policy.model, renderer)
    sequences = [
        sequence(t, advantage=1.0 if i % 2 else -0.5)
        for i, t in enumerate(t for group in groups for t in group.trajectories)
    ]
    whole_loss, whole = gradient(policy, sequences)
    loss, parts = gradient(policy, sequences, max_tokens=300)
    assert loss == pytest.approx(whole_loss, abs=1e-6)
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_what_stands_at_masked_positions_after_the_last_trained_token_is_ignored(
    policy: Policy,
) -> None:
    def run(last: int, old: float) -> tuple[float, list[torch.Tensor]]:
        one = TrainSequence(
            token_ids=(5, 6, 7, 8, last, last),
            mask=(0, 0, 1, 1, 0, 0),
            old_logprobs=(old, old, -5.0, -5.0, old, old),
            advantage=1.0,
        )
        return gradient(policy, [one])

    clean_loss, clean = run(9, 0.0)
    loss, changed = run(77, float("nan"))
    assert loss == clean_loss
    assert all(torch.equal(a, b) for a, b in zip(clean, changed, strict=True))


async def test_an_update_raises_what_was_rewarded(policy: Policy, renderer: Renderer) -> None:
    groups = await real_groups(policy.model, renderer)
    algorithm = GRPO(GRPOConfig())
    config = TrainConfig(epochs_per_step=2, minibatches_per_epoch=2)
    optimizer = Optimizer(policy.model, OptimizerConfig(learning_rate=1e-3), total_steps=4)

    def weighted() -> float:
        pairs = [
            (t, a)
            for group in groups
            for t, a in zip(group.trajectories, algorithm.compute_advantages(group), strict=True)
            if a is not None
        ]
        batch = collate([sequence(t) for t, _ in pairs], CPU)
        with torch.no_grad():
            logprobs_BT, _ = token_logprobs(policy.model, batch, temperature=1.0)
        advantages = torch.tensor([a for _, a in pairs])
        return float(((logprobs_BT * batch.mask_BT).sum(-1) * advantages).sum())

    before = weighted()
    updater = Updater(policy, algorithm, optimizer, config, temperature=1.0, seed=0)
    metrics = updater.update(1, groups)
    assert weighted() > before
    # Only the first of four minibatches runs on the policy that sampled.
    assert metrics["rollout/logprob_diff/max"] < 1e-4
    assert abs(metrics["actor/ppo_kl"]) > 0
    assert metrics["actor/entropy"] > 0


async def test_nothing_to_learn_changes_nothing(policy: Policy, renderer: Renderer) -> None:
    groups = await real_groups(policy.model, renderer)
    flat = [Group(id=g.id, sample=g.sample, trajectories=(g.trajectories[0],) * 3) for g in groups]
    before = [p.detach().clone() for p in policy.model.parameters()]
    optimizer = Optimizer(policy.model, OptimizerConfig(), total_steps=1)
    updater = Updater(policy, GRPO(GRPOConfig()), optimizer, TrainConfig(), temperature=1.0, seed=0)
    metrics = updater.update(1, flat)
    assert metrics["train/sequences"] == 0
    assert all(torch.equal(a, b) for a, b in zip(before, policy.model.parameters(), strict=True))


async def test_all_passes_compare_with_the_logprobs_of_the_engine(
    policy: Policy, renderer: Renderer
) -> None:
    seen: list[float] = []

    class Recording(GRPO):
        def compute_loss(
            self, logprobs_BT: torch.Tensor, inputs: LossInputs, totals: MinibatchTotals
        ) -> tuple[torch.Tensor, dict[str, float]]:
            seen.extend(inputs.old_logprobs_BT[inputs.response_mask_BT > 0].tolist())
            return super().compute_loss(logprobs_BT, inputs, totals)

    groups = await real_groups(policy.model, renderer)
    optimizer = Optimizer(policy.model, OptimizerConfig(learning_rate=1e-2), total_steps=6)
    updater = Updater(
        policy,
        Recording(GRPOConfig(skip_zero_variance=False)),
        optimizer,
        TrainConfig(epochs_per_step=3, minibatches_per_epoch=2, max_tokens_per_microbatch=500),
        temperature=1.0,
        seed=0,
    )
    updater.update(1, groups)
    pairs = [
        (logprob, trained)
        for group in groups
        for t in group.trajectories
        for logprob, trained in zip(t.logprobs, t.response_mask, strict=True)
    ]
    sampled = [logprob for logprob, trained in pairs if trained]
    assert sorted(seen) == pytest.approx(sorted(sampled * 3))
    assert optimizer.state_dict()["steps"] == 6
