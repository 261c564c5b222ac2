"""Metrics of rollouts, worked by hand."""

import pytest
from learner_support import make_group, make_trajectory, make_turn

from agentrl.contracts.failure import Failure
from agentrl.contracts.reward import RewardEntry, RewardLedger
from agentrl.contracts.trajectory import Group, TurnKind
from agentrl.rollout.metrics import age_metrics, rollout_metrics, signal_metrics

POLICY, USER = TurnKind.POLICY, TurnKind.USER


def group_of(*trajectories: object) -> Group:
    return Group(id="g", sample=make_group([0]).sample, trajectories=trajectories)  # type: ignore[arg-type]


def test_every_source_of_reward_is_a_mean_over_what_was_kept() -> None:
    entries = [
        RewardEntry(source="task", value=1.0, weight=0.5),
        RewardEntry(source="tool_step/add", value=0.25),
        RewardEntry(source="tool_step/add", value=0.75),
    ]
    one = make_trajectory(rewards=RewardLedger(tuple(entries)))
    two = make_trajectory(reward=0.0)
    lost = make_trajectory(reward=9.0, dropped=True)
    metrics = rollout_metrics([group_of(one, two, lost)], lambda t: t.reward >= 1)
    assert metrics["reward/task/mean"] == 0.5
    assert metrics["reward/tool_step/add/mean"] == 0.5
    assert metrics["critic/rewards/mean"] == pytest.approx(0.75)
    assert (metrics["rollout/dropped"], metrics["success/mean"]) == (1.0, 0.5)


def test_branches_are_counted_by_their_leaves() -> None:
    linear = make_trajectory(make_turn(POLICY, [4, 5], 0, 3))
    branched = make_trajectory(
        make_turn(POLICY, [4, 5], 0, 3), make_turn(USER, [6], 1, 4), make_turn(POLICY, [7], 2, 5)
    )
    metrics = rollout_metrics([group_of(linear, branched)], lambda t: True)
    assert (metrics["rollout/branches/mean"], metrics["rollout/branches/max"]) == (1.5, 2.0)
    assert metrics["num_turns/mean"] == 2.0


def test_failures_are_counted_by_kind() -> None:
    failure = Failure(kind="InfraError", type="OSError", message="down")
    metrics = rollout_metrics(
        [group_of(make_trajectory(failure=failure), make_trajectory())], lambda t: True
    )
    assert metrics["failures/InfraError"] == 1.0


def test_the_age_of_tokens_is_told() -> None:
    mixed = make_turn(POLICY, [4, 5, 6], 0, 3, versions=[1, 3, 3], mask=[0, 1, 1])
    group = group_of(make_trajectory(mixed))
    ages = age_metrics([group], 4)
    assert ages == {"rollout/staleness/mean": pytest.approx(5 / 3), "rollout/staleness/max": 3.0}


def test_the_algorithm_says_which_groups_have_a_signal() -> None:
    groups = [make_group([0, 1]), make_group([1, 1])]
    share = signal_metrics(groups, lambda group: len({t.reward for t in group.kept}) > 1)
    assert share == {"frac_reward_zero_std": 0.5}
