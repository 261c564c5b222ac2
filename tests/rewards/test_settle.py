from typing import Any

import pytest
from rewards_support import a_call, a_trajectory

from agentrl.config.rollout import FailurePolicy
from agentrl.contracts.reward import RewardEntry
from agentrl.contracts.tool import ToolOutcome
from agentrl.contracts.trajectory import Termination
from agentrl.rewards.settle import settle

RIGHT = RewardEntry(source="task", value=1.0)
TABLE = [
    # what happened, the policy beside its defaults: dropped, trained tokens, reward, penalties
    ({}, {}, False, 6, 1.0, []),
    ({"termination": "infra_error"}, {}, True, 6, 1.0, []),
    ({"termination": "infra_error"}, {"infra_error": "keep"}, False, 6, 1.0, []),
    ({"termination": "timeout"}, {}, False, 6, 1.0, []),
    ({"termination": "timeout"}, {"timeout": "drop"}, True, 6, 1.0, []),
    ({"calls": [ToolOutcome.TIMEOUT]}, {"timeout": "mask"}, False, 0, 1.0, []),
    (
        {"calls": [ToolOutcome.MODEL_ERROR]},
        {"model_error": "penalise"},
        False, 6, 0.5, ["model_error"],
    ),
    (
        {"termination": "model_error"},
        {"model_error": "penalise", "penalty": -2},
        False, 6, -1.0, ["model_error"],
    ),
    ({"termination": "max_turns"}, {"truncated": "mask"}, False, 0, 1.0, []),
    ({"termination": "max_tokens"}, {"truncated": "drop"}, True, 6, 1.0, []),
    ({"termination": "max_context"}, {"truncated": "penalise"}, False, 6, 0.5, ["truncated"]),
    # two calls of one kind are penalised once; two kinds twice; drop and mask go together
    (
        {"calls": [ToolOutcome.TIMEOUT, ToolOutcome.TIMEOUT], "termination": "max_turns"},
        {"timeout": "penalise", "truncated": "penalise"},
        False, 6, 0.0, ["timeout", "truncated"],
    ),
    (
        {"calls": [ToolOutcome.MODEL_ERROR], "termination": "infra_error"},
        {"model_error": "mask"},
        True, 0, 1.0, [],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("happened", "policy", "dropped", "trained", "reward", "penalties"),
    TABLE,
    ids=range(len(TABLE)),
)
def test_the_table_of_failures_and_actions(
    happened: dict[str, Any],
    policy: dict[str, Any],
    dropped: bool,
    trained: int,
    reward: float,
    penalties: list[str],
) -> None:
    before = a_trajectory(
        entries=[RIGHT],
        calls=[a_call(outcome) for outcome in happened.get("calls", [])],
        termination=Termination(happened.get("termination", "answered")),
    )
    after = settle(before, FailurePolicy.model_validate(policy))
    assert after.dropped is dropped
    assert sum(int(turn.mask.sum()) for turn in after.turns) == trained
    assert after.reward == reward
    assert [e.source for e in after.rewards][1:] == [f"penalty/{kind}" for kind in penalties]


def test_settling_touches_nothing_that_it_was_given() -> None:
    before = a_trajectory(entries=[RIGHT], termination=Termination.MAX_TURNS)
    settle(before, FailurePolicy(truncated="mask"))
    assert before == a_trajectory(entries=[RIGHT], termination=Termination.MAX_TURNS)
