import math

import pytest
import torch
from learner_support import leaf, make_batch, make_group, make_scores, totals

from agentrl.algorithms.advantage import group_relative, has_signal
from agentrl.algorithms.base import Batch, MinibatchTotals
from agentrl.algorithms.grpo import GRPO, GRPOConfig
from agentrl.algorithms.loss import kl_estimate
from agentrl.contracts.metric import reduce_metrics
from agentrl.contracts.trajectory import Group


def run(
    algorithm: GRPO, new: torch.Tensor, batch: Batch, counts: MinibatchTotals
) -> tuple[torch.Tensor, dict[str, float]]:
    loss = algorithm.compute_loss(make_scores(new), batch, counts)
    return loss.value, reduce_metrics([loss.metrics])


def advantages(algorithm: GRPO, group: Group) -> list[float]:
    return [float(sample.advantages[0]) for sample in algorithm.credit([group])]


def test_advantages_are_relative_to_the_group() -> None:
    # mean 0.5; sample standard deviation sqrt(4 * 0.25 / 3) = 0.57735
    scaled = group_relative([1, 0, 0, 1], scale_by_std=True)
    assert scaled == pytest.approx([0.866025, -0.866025, -0.866025, 0.866025], abs=1e-5)
    assert group_relative([1, 0, 0, 1], scale_by_std=False) == [0.5, -0.5, -0.5, 0.5]


def test_a_group_of_one_has_no_baseline() -> None:
    assert group_relative([3.0], scale_by_std=True) == [0.0]
    assert not has_signal([3.0])


def test_dropped_trajectories_are_left_out_of_the_baseline() -> None:
    algorithm = GRPO(GRPOConfig(scale_by_std=False))
    # kept: 1, 0, 0.5 with mean 0.5; the dropped 100 would have moved it
    group = make_group([1, 100, 0, 0.5], dropped=(1,))
    assert advantages(algorithm, group) == [0.5, -0.5, 0.0]


def test_groups_without_variance_are_skipped_or_kept_as_configured() -> None:
    assert advantages(GRPO(GRPOConfig()), make_group([1, 1])) == []
    assert advantages(GRPO(GRPOConfig(skip_zero_variance=False)), make_group([1, 1])) == [0, 0]
    assert not GRPO(GRPOConfig()).has_signal(make_group([1, 1]))


def test_kl_estimators_follow_their_formulas() -> None:
    logprob, reference = torch.tensor([-1.0]), torch.tensor([-1.5])  # r = -0.5
    assert kl_estimate(logprob, reference, "k1").item() == pytest.approx(0.5)
    assert kl_estimate(logprob, reference, "k2").item() == pytest.approx(0.125)
    expected = math.exp(-0.5) - 1 + 0.5
    assert kl_estimate(logprob, reference, "k3").item() == pytest.approx(expected, abs=1e-7)


def test_loss_and_gradient_equal_a_hand_worked_example() -> None:
    # Two sequences, four trained tokens, bounds [0.8, 1.3], token mean over N = 4.
    # token   old    new    ratio            A    surrogate min(rA, clip(r)A)       d/dnew
    # (0,1)  -1.0   -1.0    1                +2   2                                 -2/4
    # (0,2)  -2.0   -1.5    e^0.5 = 1.648721 +2   clip 1.3 -> 2.6                    0
    # (1,1)  -1.0   -1.5    e^-0.5 = 0.606531 -1  max side: clip 0.8 -> -0.8         0
    # (1,2)  -1.0   -0.9    e^0.1 = 1.105171 -1   -1.105171                          1.105171/4
    # loss = -(2 + 2.6 - 0.8 - 1.1051709) / 4 = -0.6737073
    new = leaf([[0.0, -1.0, -1.5], [0.0, -1.5, -0.9]])
    batch = make_batch(
        [[0, 1, 1], [0, 1, 1]],
        [[0.0, -1.0, -2.0], [0.0, -1.0, -1.0]],
        [[2.0] * 3, [-1.0] * 3],
    )
    algorithm = GRPO(GRPOConfig(clip_low=0.2, clip_high=0.3))
    loss, metrics = run(algorithm, new, batch, totals(4, 2))
    loss.backward()
    assert loss.item() == pytest.approx(-0.67370727, abs=1e-6)
    expected = [[0.0, -0.5, 0.0], [0.0, 0.0, 0.27629273]]
    assert new.grad is not None
    assert torch.allclose(new.grad, torch.tensor(expected, dtype=torch.float64), atol=1e-6)
    assert metrics["actor/clip_frac"] == 0.5
    # mean of old - new: (0 - 0.5 + 0.5 - 0.1) / 4
    assert metrics["actor/ppo_kl"] == pytest.approx(-0.025, abs=1e-6)


def test_sequence_mean_and_kl_equal_a_hand_worked_example() -> None:
    # Ratio 1 everywhere. Sequence 0: one token, A = 1 -> -1. Sequence 1: two tokens, A = -2 -> 2.
    # Mean over sequences: (-1 + 2) / 2 = 0.5.
    # k2 with ref - new = 0.2 on sequence 0 (0.02), and 0, 0.4 on sequence 1 (mean 0.04):
    # 0.5 * (0.02 + 0.04) / 2 = 0.015.
    new = leaf([[-1.0, 0.0], [-1.0, -2.0]])
    batch = make_batch(
        [[1, 0], [1, 1]],
        [[-1.0, 9.0], [-1.0, -2.0]],
        [[1.0, 1.0], [-2.0, -2.0]],
        ref=[[-0.8, 0.0], [-1.0, -1.6]],
    )
    config = GRPOConfig.model_validate(
        {"aggregation": "sequence_mean", "kl": {"coefficient": 0.5, "estimator": "k2"}}
    )
    loss, metrics = run(GRPO(config), new, batch, totals(3, 2))
    loss.backward()
    assert loss.item() == pytest.approx(0.515, abs=1e-6)
    assert metrics["actor/kl_loss"] == pytest.approx(0.03, abs=1e-6)
    # d(-A r)/dnew = -A/(n_i S); d(k2)/dnew = -(ref - new)/(n_i S), times 0.5
    expected = [[-0.5 - 0.05, 0.0], [0.5, 0.5 - 0.05]]
    assert new.grad is not None
    assert torch.allclose(new.grad, torch.tensor(expected, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
@pytest.mark.parametrize("poison", [1e9, math.inf, math.nan])
def test_masked_tokens_change_neither_loss_nor_gradient(aggregation: str, poison: float) -> None:
    def run_with(value: float, logprob: float) -> tuple[float, torch.Tensor]:
        new = leaf([[logprob, -1.0, -0.5], [-0.7, logprob, -0.3]])
        batch = make_batch(
            [[0, 1, 1], [1, 0, 1]],
            [[value, -1.1, -0.5], [-0.7, value, -0.4]],
            [[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]],
            ref=[[0.0, -1.0, -0.4], [-0.7, 0.0, -0.2]],
        )
        config = GRPOConfig.model_validate(
            {"aggregation": aggregation, "kl": {"coefficient": 0.1, "estimator": "k3"}}
        )
        loss, _ = run(GRPO(config), new, batch, totals(4, 2))
        loss.backward()
        assert new.grad is not None
        return loss.item(), new.grad

    clean_loss, clean_gradient = run_with(0.0, 0.0)
    loss, gradient = run_with(poison, -3.0)
    assert loss == clean_loss
    assert torch.equal(gradient, clean_gradient)
    assert gradient[0, 0] == 0
    assert gradient[1, 1] == 0


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
def test_shares_of_micro_batches_add_up_to_the_minibatch(aggregation: str) -> None:
    torch.manual_seed(0)
    new = torch.randn(4, 5, dtype=torch.float64)
    old, advantages = torch.randn(4, 5).double(), torch.randn(4, 1).double().expand(4, 5)
    mask = (torch.rand(4, 5) > 0.4).long()
    mask[:, 0] = 1
    algorithm = GRPO(GRPOConfig.model_validate({"aggregation": aggregation}))
    counts = totals(int(mask.sum()), 4)

    def share(rows: slice) -> float:
        parts = (mask[rows].tolist(), old[rows].tolist(), advantages[rows].tolist())
        return run(algorithm, new[rows], make_batch(*parts), counts)[0].item()

    parts = share(slice(0, 1)) + share(slice(1, 4))
    assert parts == pytest.approx(share(slice(0, 4)), abs=1e-12)
