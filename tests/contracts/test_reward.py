from typing import Any

import pytest
from rewards_support import ScoringTask, a_trajectory

from agentrl.contracts.reward import RewardEntry, RewardLedger, finite, weigh
from agentrl.contracts.trajectory import Termination


def entry(source: str, value: float, weight: float = 1.0) -> RewardEntry:
    return RewardEntry(source=source, value=value, weight=weight)


def test_a_ledger_sums_by_source_and_in_total() -> None:
    ledger = RewardLedger(
        (
            entry("task", 1.0),
            entry("tool/a", 0.5, 2.0),
            entry("tool/a", 1.0),
            entry("tool/b", 4.0, 0.0),
        )
    )
    assert ledger.sources() == {"task": 1.0, "tool/a": 1.5, "tool/b": 4.0}
    assert ledger.of("tool") == 5.5
    assert ledger.total == 3.0


def test_a_weight_is_that_of_the_longest_prefix() -> None:
    weighed = weigh([entry("tool/a/x", 1.0), entry("tools", 1.0)], {"tool": 2.0, "tool/a": 3.0})
    assert [e.weight for e in weighed] == [3.0, 1.0]


@pytest.mark.parametrize("value", ["1", b"1", [1], float("nan"), float("inf"), 10**400])
def test_what_is_no_finite_number_is_no_reward(value: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        finite(value)


@pytest.mark.parametrize(
    ("entries", "termination", "succeeded"),
    [
        ([entry("task", 1.0), entry("style", -5.0)], "answered", True),
        ([entry("task", 0.5), entry("style", 5.0)], "answered", False),
        ([entry("style", 2.0, 0.5)], "answered", True),
        ([entry("style", 2.0, 0.25)], "answered", False),
        ([entry("tool_step/add", 2.0)], "infra_error", False),
        ([], "answered", False),
    ],
)
def test_success_is_the_tasks_or_else_the_totals(
    entries: list[RewardEntry], termination: str, succeeded: bool
) -> None:
    trajectory = a_trajectory(entries=entries, termination=Termination(termination))
    assert ScoringTask().succeeded(trajectory) is succeeded
