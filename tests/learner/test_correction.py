import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tests_support import sample

from agentrl.algorithms.base import LossInputs, MinibatchTotals
from agentrl.algorithms.grpo import GRPO
from agentrl.config.train import (
    CorrectionConfig,
    GRPOConfig,
    KLConfig,
    OptimizerConfig,
    TrainConfig,
)
from agentrl.contracts.reward import RewardEntry, RewardLedger
from agentrl.contracts.trajectory import Group, Termination, Trajectory, Turn, TurnKind
from agentrl.learner.batch import TrainSequence
from agentrl.learner.correction import corrected, gap_metrics, weight_metrics
from agentrl.learner.models import Policy
from agentrl.learner.optimizer import Optimizer
from agentrl.learner.update import Updater
from agentrl.plugins.reference import load_plugin

CPU = torch.device("cpu")
NAN = float("nan")

# Ratios trainer/engine of the trained tokens: 4, 1/4, 3/2, 1. Their product is 3/2.
ENGINE = (NAN, -2.0, -1.0, 7.0, -2.0, -0.5)
RATIOS = (0.0, 4.0, 0.25, 0.0, 1.5, 1.0)
MASK = (0, 1, 1, 0, 1, 1)
TRAINER = tuple(
    engine + math.log(ratio) if bit else -9.0
    for engine, ratio, bit in zip(ENGINE, RATIOS, MASK, strict=True)
)


def engine_sequence(
    old_logprobs: Sequence[float] = ENGINE, mask: Sequence[int] = MASK, **fields: Any
) -> TrainSequence:
    return TrainSequence(
        token_ids=tuple(range(len(mask))),
        mask=tuple(mask),
        old_logprobs=tuple(old_logprobs),
        **fields,
    )


def weights(
    config: dict[str, Any],
    *,
    sequence: TrainSequence | None = None,
    trainer: Sequence[float] = TRAINER,
) -> list[float]:
    """Return the weights of the trained tokens."""
    section = CorrectionConfig.model_validate(config)
    (one,) = corrected([sequence or engine_sequence()], iter([trainer]), section)
    return [w for w, bit in zip(one.weights, one.mask, strict=True) if bit]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # By token: 4 is cut to the bound; what is small stays.
        ({"type": "truncate"}, [2, 0.25, 1.5, 1]),
        ({"type": "truncate", "high": 1.25}, [1.25, 0.25, 1.25, 1]),
        # Both bounds: 4 and 1/4 lie outside.
        ({"type": "mask"}, [0, 0, 1.5, 1]),
        ({"type": "mask", "low": 0.2}, [0, 0.25, 1.5, 1]),
        ({"type": "mask", "high": 5.0}, [4, 0, 1.5, 1]),
        # One weight a sequence, 4 * 1/4 * 3/2 * 1.
        ({"type": "truncate", "level": "sequence"}, [1.5] * 4),
        ({"type": "truncate", "level": "sequence", "high": 1.25}, [1.25] * 4),
        ({"type": "mask", "level": "sequence"}, [1.5] * 4),
        ({"type": "mask", "level": "sequence", "high": 1.25}, [0] * 4),
        ({"type": "mask", "level": "sequence", "low": 1.75}, [0] * 4),
    ],
)
def test_the_weights_are_the_bounded_ratios_of_trainer_to_engine(
    config: dict[str, Any], expected: list[float]
) -> None:
    assert weights(config) == pytest.approx(expected)


def test_a_ratio_on_the_bound_is_kept() -> None:
    one = engine_sequence([0.0, 0.0], [1, 1])
    config = {"type": "mask", "low": 1.0, "high": math.exp(0.5)}
    assert weights(config, sequence=one, trainer=[0.0, 0.5]) == [1.0, math.exp(0.5)]


@pytest.mark.parametrize(("kind", "expected"), [("truncate", [2.0, 0.0]), ("mask", [0.0, 0.0])])
def test_a_gap_beyond_floating_point_is_bounded_like_any_other(
    kind: str, expected: list[float]
) -> None:
    one = engine_sequence([-5000.0, 0.0], [1, 1])
    assert weights({"type": kind}, sequence=one, trainer=[0.0, -5000.0]) == expected


def test_masked_positions_weigh_nothing_in_a_sequences_product() -> None:
    trained = math.log(1.5)
    for engine, trainer in [(-50.0, 0.0), (0.0, -50.0), (NAN, 0.0), (0.0, float("-inf"))]:
        one = engine_sequence([engine, -1.0, engine], [0, 1, 0])
        rows = [trainer, -1.0 + trained, trainer]
        got = weights({"type": "truncate", "level": "sequence"}, sequence=one, trainer=rows)
        assert got == pytest.approx([1.5])


def test_each_sequence_gets_its_own_rows_logprobs_and_keeps_the_rest() -> None:
    first = engine_sequence([0.0, -1.0], [0, 1], advantage=0.5, ref_logprobs=(0.0, -3.0))
    second = engine_sequence([0.0, -1.0, -1.0], [0, 1, 1], advantage=-0.5)
    trainer = [[0.0, -2.0], [0.0, -1.0, -1.0]]
    one, two = corrected(
        [first, second], iter(trainer), CorrectionConfig(type="truncate", level="sequence")
    )
    assert one.old_logprobs == (0.0, -2.0)
    assert two.old_logprobs == (0.0, -1.0, -1.0)
    assert one.weights == pytest.approx([math.exp(-1)] * 2)
    assert two.weights == (1.0, 1.0, 1.0)
    assert (one.advantage, one.ref_logprobs, one.token_ids) == (0.5, (0.0, -3.0), (0, 1))
    assert two.advantage == -0.5


def test_the_gap_is_measured_over_the_trained_tokens() -> None:
    # Gaps log 2, -2 log 2 and 0, which do not cancel; k3 is ratio - 1 - log ratio.
    first = engine_sequence([9.0, -1.0, -1.0], [0, 1, 1])
    second = engine_sequence([-1.0, 9.0], [1, 0])
    log2 = math.log(2)
    metrics = gap_metrics([first, second], [[NAN, -1 + log2, -1 - 2 * log2], [-1.0, -7.0]])
    k3 = ((2 - 1 - log2) + (0.25 - 1 + 2 * log2) + 0) / 3
    assert metrics == {
        "rollout/logprob_diff/mean": pytest.approx((log2 + 2 * log2) / 3),
        "rollout/logprob_diff/max": pytest.approx(2 * log2),
        "rollout/kl": pytest.approx(k3),
    }


def test_without_a_gap_the_metrics_are_zero() -> None:
    one = engine_sequence([0.0, -1.25], [0, 1])
    expected = {"rollout/logprob_diff/mean": 0, "rollout/logprob_diff/max": 0, "rollout/kl": 0}
    assert gap_metrics([one], [[3.0, -1.25]]) == expected
    assert gap_metrics([], []) == expected


def test_the_weights_are_summarised_over_the_trained_tokens() -> None:
    first = engine_sequence([0.0] * 4, [0, 1, 1, 1], weights=(50.0, 2.0, 0.0, 0.5))
    second = engine_sequence([0.0] * 2, [1, 0], weights=(1.0, 0.0))
    assert weight_metrics([first, second]) == {
        "rollout/is_weight/mean": pytest.approx(3.5 / 4),
        "rollout/is_weight/zero_frac": pytest.approx(1 / 4),
    }


def test_grpo_weighs_each_tokens_policy_loss_and_neither_the_penalty_nor_the_count() -> None:
    config = GRPOConfig(kl=KLConfig(coefficient=0.1, estimator="k1"))
    logprobs_BT = torch.tensor([[-1.0, -1.0, -1.0, -1.0]], requires_grad=True)
    inputs = LossInputs(
        response_mask_BT=torch.tensor([[1, 1, 1, 0]]),
        old_logprobs_BT=torch.full((1, 4), -1.0),
        advantages_BT=torch.full((1, 4), 3.0),
        ref_logprobs_BT=torch.full((1, 4), -1.5),
        importance_weights_BT=torch.tensor([[2.0, 0.5, 0.0, 8.0]]),
    )
    totals = MinibatchTotals(num_tokens=3, num_sequences=1)
    loss, metrics = GRPO(config).compute_loss(logprobs_BT, inputs, totals)
    # Policy: -3 * (2 + 0.5 + 0) / 3 tokens. Penalty: 0.1 * 0.5, unweighted.
    assert metrics["actor/pg_loss"] == pytest.approx(-2.5)
    assert metrics["actor/kl_loss"] == pytest.approx(0.5)
    assert loss.item() == pytest.approx(-2.5 + 0.05)
    loss.backward()
    assert logprobs_BT.grad is not None
    penalty = 0.1 / 3
    assert logprobs_BT.grad.tolist() == [
        pytest.approx([-2 + penalty, -0.5 + penalty, penalty, 0.0])
    ]


class Keeping(Optimizer):
    """An optimizer that remembers the gradients it stepped with."""

    def step(self) -> float:
        self.gradients = [p.grad.clone() for p in self._masters]
        return super().step()


@pytest.fixture
def policies(tiny_policy: str) -> list[Policy]:
    """Three policies with the same weights."""
    pairs = [load_plugin(tiny_policy)(0) for _ in range(3)]
    return [Policy(model=model, tokenizer=tokenizer, device=CPU) for model, tokenizer in pairs]


PROMPT = (5, 6, 7)
REPLIES = [
    ((11, 12, 13), (14, 15)),
    ((21, 22), (23, 24, 25, 26)),
    ((31,), (32, 33)),
]
TOOL = (40, 41)
REWARDS = [1.0, 0.0, 0.25]


def plain_logprobs(model: Any, token_ids: Sequence[int]) -> torch.Tensor:
    """Score one row without padding; the first token, which nothing predicts, gets 0."""
    ids_1T = torch.tensor([list(token_ids)])
    logprobs_1TV = model(input_ids=ids_1T).logits.log_softmax(-1)
    picked_T = logprobs_1TV[0, :-1].gather(-1, ids_1T[0, 1:, None])[:, 0]
    return torch.cat([torch.zeros(1), picked_T])


def dialogues(model: Any, gaps: Sequence[float]) -> Group:
    """Return three rollouts; the engine's logprobs lie below the trainer's by `gaps`, in turn."""
    rows, cycle = [], 0
    for reply, reward in zip(REPLIES, REWARDS, strict=True):
        first, last = reply
        with torch.no_grad():
            logprobs = plain_logprobs(model, [*PROMPT, *first, *TOOL, *last]).tolist()
        turns, start = [], len(PROMPT)
        for kind, ids in ((TurnKind.POLICY, first), (TurnKind.TOOL, TOOL), (TurnKind.POLICY, last)):
            policy, stop = kind is TurnKind.POLICY, start + len(ids)
            engine = [
                logprobs[i] - gaps[(cycle + i) % len(gaps)] for i in range(start, stop) if policy
            ]
            turns.append(
                Turn(
                    kind=kind,
                    messages=({"role": "assistant" if policy else "tool", "content": "x"},),
                    token_ids=ids,
                    mask=(int(policy),) * len(ids),
                    logprobs=tuple(engine),
                    policy_versions=(0,) * len(engine),
                )
            )
            start = stop
        cycle += start
        rows.append(
            Trajectory(
                id=f"t{len(rows)}",
                sample=sample(),
                prompt_ids=PROMPT,
                turns=tuple(turns),
                rewards=RewardLedger((RewardEntry(source="task", value=reward),)),
                termination=Termination.ANSWERED,
            )
        )
    return Group(id="g", sample=sample(), trajectories=tuple(rows))


def update(
    policy: Policy, group: Group, correction: str, **train: Any
) -> tuple[dict[str, float], list[torch.Tensor]]:
    """Update once; return the metrics and the last minibatch's gradients."""
    config = TrainConfig(correction=CorrectionConfig(type=correction), **train)
    settings = OptimizerConfig(learning_rate=1e-2, max_grad_norm=1e6)
    optimizer = Keeping(policy.model, settings, total_steps=8)
    # Any clipping bound does, because the ratio to the trainer's own logprobs is 1.
    algorithm = GRPO(GRPOConfig(scale_by_std=False))
    updater = Updater(policy, algorithm, optimizer, config, temperature=1.0, seed=0)
    metrics = updater.update(1, [group])
    return metrics, optimizer.gradients


def same(ones: Sequence[torch.Tensor], others: Sequence[torch.Tensor], atol: float) -> bool:
    return all(torch.allclose(a, b, atol=atol) for a, b in zip(ones, others, strict=True))


def test_a_truncated_updates_gradient_is_the_one_weighted_by_hand(policies: list[Policy]) -> None:
    model = policies[0].model
    group = dialogues(model, [math.log(4), math.log(0.5), 0.0])
    mean = sum(REWARDS) / 3
    loss, count, by_hand = torch.zeros(()), 0, list[float]()
    for trajectory in group.trajectories:
        logprobs_T = plain_logprobs(model, trajectory.token_ids)
        for i, bit in enumerate(trajectory.response_mask):
            if bit:
                gap = logprobs_T[i].item() - trajectory.logprobs[i]
                by_hand.append(min(math.exp(gap), 2.0))
                loss = loss - by_hand[-1] * (trajectory.reward - mean) * logprobs_T[i]
                count += 1
    assert {round(w, 3) for w in by_hand} == {2.0, 0.5, 1.0}
    model.zero_grad()
    (loss / count).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()

    # Small micro-batches, so that padding and the order of rows are in play.
    metrics, gradients = update(policies[0], group, "truncate", max_tokens_per_microbatch=24)
    assert same(gradients, expected, atol=1e-6)
    assert metrics["rollout/is_weight/mean"] == pytest.approx(sum(by_hand) / count, abs=1e-4)
    assert metrics["rollout/logprob_diff/max"] == pytest.approx(math.log(4), abs=1e-4)
    assert metrics["actor/ppo_kl"] == pytest.approx(0.0, abs=1e-5)

    # The comparison would notice a correction that was left out.
    _, uncorrected = update(policies[1], group, "none", max_tokens_per_microbatch=24)
    assert not same(uncorrected, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["truncate", "mask"])
def test_where_engine_and_trainer_agree_the_correction_changes_nothing(
    policies: list[Policy], kind: str
) -> None:
    corrected_one, plain, before = policies
    group = dialogues(before.model, [0.0])
    passes = {"epochs_per_step": 2, "minibatches_per_epoch": 2}
    measured, gradients = update(corrected_one, group, kind, **passes)
    unmeasured, expected = update(plain, group, "none", **passes)
    assert same(gradients, expected, atol=1e-5)
    moved = list(corrected_one.model.parameters())
    assert same(moved, list(plain.model.parameters()), atol=1e-5)
    assert not same(moved, list(before.model.parameters()), atol=1e-3)
    assert measured["rollout/is_weight/mean"] == pytest.approx(1.0, abs=1e-4)
    assert measured["rollout/is_weight/zero_frac"] == 0
    for name in ("rollout/logprob_diff/mean", "rollout/logprob_diff/max", "rollout/kl"):
        assert measured[name] == pytest.approx(unmeasured[name], abs=1e-4)
