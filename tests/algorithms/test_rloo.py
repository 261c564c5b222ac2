import math

import pytest
import torch
from learner_support import leaf, make_batch, make_group, make_scores, totals

from agentrl.algorithms.advantage import leave_one_out
from agentrl.algorithms.rloo import RLOO, RLOOConfig


def test_the_baseline_is_the_mean_of_the_others() -> None:
    # 1 - (0 + 0.5) / 2, 0 - (1 + 0.5) / 2, 0.5 - (1 + 0) / 2
    assert leave_one_out([1, 0, 0.5]) == pytest.approx([0.75, -0.75, 0.0])
    assert leave_one_out([3.0]) == [0.0]


def test_groups_without_signal_and_dropped_ones_are_left_out() -> None:
    groups = [make_group([1, 1]), make_group([1, 9, 0], dropped=(1,))]
    samples = list(RLOO(RLOOConfig()).credit(groups))
    assert [s.advantages.tolist() for s in samples] == [[1.0] * 5, [-1.0] * 5]


def test_without_clipping_it_is_reinforce_over_whole_sequences() -> None:
    # Sequence 0: two tokens, A = 2: -2 (-1 - 0.5) = 3. Sequence 1: one token, A = -1: -0.25.
    # (3 - 0.25) / 2; the gradient is -A / 2 on every token, however long the sequence.
    new = leaf([[-1.0, -0.5], [-0.25, -9.0]])
    batch = make_batch([[1, 1], [1, 0]], [[-1.0, -1.0], [-1.0, 0.0]], [[2.0] * 2, [-1.0] * 2])
    loss = RLOO(RLOOConfig()).compute_loss(make_scores(new), batch, totals(3, 2))
    loss.value.backward()
    assert loss.value.item() == pytest.approx(1.375)
    assert new.grad.tolist() == [[-1.0, -1.0], [0.5, 0.0]]


def test_clipping_bounds_the_ratio_of_the_whole_sequence() -> None:
    # Packed: segment 0 has log ratio 0.3 + 0.1 = 0.4, ratio 1.4918, A = 2: clipped at 1.2.
    # Segment 1 has log ratio 0.1, ratio 1.10517, A = 2: not clipped.
    new = leaf([[0.0, -0.7, -0.9, 0.0, -0.9]])
    batch = make_batch(
        [[0, 1, 1, 0, 1]],
        [[0.0, -1.0, -1.0, 0.0, -1.0]],
        [[2.0] * 5],
        segments=[[0, 0, 0, 1, 1]],
    )
    loss = RLOO(RLOOConfig(clip=0.2)).compute_loss(make_scores(new), batch, totals(3, 2))
    loss.value.backward()
    assert loss.value.item() == pytest.approx(-(2.4 + 2 * math.exp(0.1)) / 2)
    expected = torch.tensor([[0.0, 0.0, 0.0, 0.0, -math.exp(0.1)]], dtype=torch.float64)
    assert torch.allclose(new.grad, expected)


@pytest.mark.parametrize("clip", [None, 0.2])
def test_importance_weights_multiply_the_policy_loss(clip: float | None) -> None:
    new = leaf([[-1.0, -1.0]])
    batch = make_batch([[1, 1]], [[-1.0] * 2], [[1.0] * 2], weights=[[0.5, 0.5]])
    loss = RLOO(RLOOConfig(clip=clip)).compute_loss(make_scores(new), batch, totals(2, 1))
    loss.value.backward()
    assert new.grad.tolist() == [[-0.5, -0.5]]
