import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from learner_support import (
    SAMPLE,
    leaf,
    make_batch,
    make_sample,
    make_scores,
    make_trajectory,
    make_turn,
    tiny_model,
    totals,
)

from agentrl.algorithms.grpo import GRPO, GRPOConfig
from agentrl.algorithms.loss import KLConfig
from agentrl.algorithms.samples import TrainSample
from agentrl.config.train import CorrectionConfig, OptimizerConfig, TrainConfig
from agentrl.contracts.metric import reduce_metrics
from agentrl.contracts.trajectory import Group, TurnKind
from agentrl.learner.batch import Streams
from agentrl.learner.correction import corrected, gap_metrics, weight_metrics
from agentrl.learner.learner import Learner
from agentrl.learner.models import Model
from agentrl.learner.optimizer import Optimizer

NAN = float("nan")

# Ratios trainer/engine of the trained tokens: 4, 1/4, 3/2, 1. Their product is 3/2.
ENGINE = (NAN, -2.0, -1.0, 7.0, -2.0, -0.5)
RATIOS = (0.0, 4.0, 0.25, 0.0, 1.5, 1.0)
MASK = (0, 1, 1, 0, 1, 1)
TRAINER = tuple(
    engine + math.log(ratio) if bit else -9.0
    for engine, ratio, bit in zip(ENGINE, RATIOS, MASK, strict=True)
)


def engine_sample(
    old_logprobs: Sequence[float] = ENGINE, mask: Sequence[int] = MASK, **streams: Any
) -> TrainSample:
    return make_sample(range(len(mask)), mask, old_logprobs, **streams)


def weights(
    config: dict[str, Any],
    *,
    sample: TrainSample | None = None,
    trainer: Sequence[float] = TRAINER,
) -> list[float]:
    """Return the weights of the trained tokens."""
    section = CorrectionConfig.model_validate(config)
    streams = Streams.of([sample or engine_sample()])
    found = corrected(streams, np.array(trainer), section)
    return found.optional["weights"][streams.loss_mask_N > 0].tolist()


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
    one = engine_sample([0.0, 0.0], [0, 1])
    assert weights({"type": "mask", "low": 1.0}, sample=one, trainer=[0.0, 0.0]) == [1.0]
    assert weights({"type": "mask", "high": 1.0}, sample=one, trainer=[0.0, 0.0]) == [1.0]


@pytest.mark.parametrize(("kind", "expected"), [("truncate", [2.0, 0.0]), ("mask", [0.0, 0.0])])
def test_a_gap_beyond_floating_point_is_bounded_like_any_other(
    kind: str, expected: list[float]
) -> None:
    one = engine_sample([NAN, -5000.0, 0.0], [0, 1, 1])
    assert weights({"type": kind}, sample=one, trainer=[0.0, 0.0, -5000.0]) == expected


def test_masked_positions_weigh_nothing_in_a_sequences_product() -> None:
    trained = math.log(1.5)
    for engine, trainer in [(-50.0, 0.0), (0.0, -50.0), (NAN, 0.0), (0.0, float("-inf"))]:
        one = engine_sample([engine, -1.0, engine], [0, 1, 0])
        rows = [trainer, -1.0 + trained, trainer]
        got = weights({"type": "truncate", "level": "sequence"}, sample=one, trainer=rows)
        assert got == pytest.approx([1.5])


def test_each_sample_gets_its_own_product_and_keeps_the_rest() -> None:
    first = engine_sample([0.0, -1.0], [0, 1], advantages=[0.5] * 2, ref_logprobs=[0.0, -3.0])
    more = {"advantages": [-0.5] * 3, "ref_logprobs": [0.0] * 3}
    second = engine_sample([0.0, -1.0, -1.0], [0, 1, 1], **more)
    streams = Streams.of([first, second])
    trainer = np.array([0.0, -2.0, 0.0, -1.0, -1.0])
    found = corrected(streams, trainer, CorrectionConfig(type="truncate", level="sequence"))
    assert found.old_logprobs_N.tolist() == trainer.tolist()
    assert found.optional["weights"].tolist() == pytest.approx([math.exp(-1)] * 2 + [1] * 3)
    assert found.optional["ref_logprobs"].tolist() == [0, -3, 0, 0, 0]
    assert found.advantages_N.tolist() == [0.5, 0.5, -0.5, -0.5, -0.5]


def test_weights_that_the_algorithm_gave_are_multiplied() -> None:
    one = engine_sample([0.0, -1.0], [0, 1], weights=[1.0, 0.5])
    found = weights({"type": "truncate"}, sample=one, trainer=[0.0, -1.0 + math.log(1.5)])
    assert found == pytest.approx([0.75])


def test_the_gap_is_measured_over_the_trained_tokens() -> None:
    # Gaps log 2, -2 log 2 and 0, which do not cancel; k3 is ratio - 1 - log ratio.
    log2 = math.log(2)
    metrics = gap_metrics(torch.tensor([log2, -2 * log2, 0.0], dtype=torch.float64))
    k3 = ((2 - 1 - log2) + (0.25 - 1 + 2 * log2) + 0) / 3
    assert reduce_metrics([metrics]) == {
        "rollout/logprob_diff/mean": pytest.approx((log2 + 2 * log2) / 3),
        "rollout/logprob_diff/max": pytest.approx(2 * log2),
        "rollout/kl": pytest.approx(k3),
    }


def test_the_gaps_of_micro_batches_are_weighed_by_their_tokens() -> None:
    parts = [gap_metrics(torch.tensor(gaps)) for gaps in ([1.0, 1.0, 1.0], [-3.0], [])]
    metrics = reduce_metrics(parts)
    assert metrics["rollout/logprob_diff/mean"] == pytest.approx(6 / 4)
    assert metrics["rollout/logprob_diff/max"] == 3.0


def test_the_weights_are_summarised_over_the_trained_tokens() -> None:
    first = engine_sample([0.0] * 4, [0, 1, 1, 1], weights=(50.0, 2.0, 0.0, 0.5))
    second = engine_sample([0.0] * 2, [0, 1], weights=(0.0, 1.0))
    assert reduce_metrics([weight_metrics(Streams.of([first, second]))]) == {
        "rollout/is_weight/mean": pytest.approx(3.5 / 4),
        "rollout/is_weight/zero_frac": pytest.approx(1 / 4),
    }


def test_grpo_weighs_each_tokens_policy_loss_and_neither_the_penalty_nor_the_count() -> None:
    config = GRPOConfig(kl=KLConfig(coefficient=0.1, estimator="k1"))
    logprobs_RT = leaf([[-1.0] * 4])
    batch = make_batch(
        [[1, 1, 1, 0]],
        [[-1.0] * 4],
        [[3.0] * 4],
        ref=[[-1.5] * 4],
        weights=[[2.0, 0.5, 0.0, 8.0]],
    )
    found = GRPO(config).compute_loss(make_scores(logprobs_RT), batch, totals(3, 1))
    loss, metrics = found.value, reduce_metrics([found.metrics])
    # Policy: -3 * (2 + 0.5 + 0) / 3 tokens. Penalty: 0.1 * 0.5, unweighted.
    assert metrics["actor/pg_loss"] == pytest.approx(-2.5)
    assert metrics["actor/kl_loss"] == pytest.approx(0.5)
    assert loss.item() == pytest.approx(-2.5 + 0.05)
    loss.backward()
    assert logprobs_RT.grad is not None
    penalty = 0.1 / 3
    assert logprobs_RT.grad.tolist() == [
        pytest.approx([-2 + penalty, -0.5 + penalty, penalty, 0.0])
    ]


class Keeping(Optimizer):
    """An optimizer that remembers the gradients it stepped with."""

    def step(self) -> float:
        self.gradients = [p.grad.clone() for p in self._masters]
        return super().step()


@pytest.fixture
def policies(tiny_policy: str) -> list[Model]:
    """Three policies with the same weights, the second with padded rows."""
    return [tiny_model(tiny_policy, packed=number != 1) for number in range(3)]


PROMPT = (1, 2, 3)
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
            stop = start + len(ids)
            engine = [logprobs[i] - gaps[(cycle + i) % len(gaps)] for i in range(start, stop)]
            streams = {"logprobs": engine} if kind is TurnKind.POLICY else {}
            turns.append(make_turn(kind, ids, len(turns), start, **streams))
            start = stop
        cycle += start
        rows.append(make_trajectory(*turns, id=f"t{len(rows)}", reward=reward))
    return Group(id="g", sample=SAMPLE, trajectories=tuple(rows))


def update(
    policy: Model, group: Group, correction: str, **train: Any
) -> tuple[dict[str, float], list[torch.Tensor]]:
    """Update once; return the metrics and the last minibatch's gradients."""
    config = TrainConfig(correction=CorrectionConfig(type=correction), **train)
    settings = OptimizerConfig(learning_rate=1e-2, max_grad_norm=1e6)
    optimizer = Keeping(policy.model, settings, total_steps=8)
    # Any clipping bound does, because the ratio to the trainer's own logprobs is 1.
    algorithm = GRPO(GRPOConfig(scale_by_std=False))
    learner = Learner(policy, algorithm, optimizer, config, temperature=1.0, seed=0)
    metrics = learner.update(1, learner.credit(1, [group]))
    return metrics, optimizer.gradients


def same(ones: Sequence[torch.Tensor], others: Sequence[torch.Tensor], atol: float) -> bool:
    return all(torch.allclose(a, b, atol=atol) for a, b in zip(ones, others, strict=True))


def test_a_truncated_updates_gradient_is_the_one_weighted_by_hand(policies: list[Model]) -> None:
    model = policies[0].model
    group = dialogues(model, [math.log(4), math.log(0.5), 0.0])
    mean = sum(REWARDS) / 3
    loss, count, by_hand = torch.zeros(()), 0, list[float]()
    for trajectory in group.trajectories:
        branch = trajectory.branch(3)
        logprobs_T = plain_logprobs(model, branch.token_ids.tolist())
        for i, bit in enumerate(branch.mask):
            if bit:
                gap = logprobs_T[i].item() - float(branch.logprobs[i])
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
    policies: list[Model], kind: str
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
