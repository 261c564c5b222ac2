from typing import Any

import pytest

from agentrl.contracts.reward import RewardEntry, RewardLedger, weigh
from agentrl.contracts.sample import Sample
from agentrl.contracts.trajectory import Group, Termination, Trajectory, Turn, TurnKind
from agentrl.seed import derive_seed

POLICY, TOOL, USER = TurnKind.POLICY, TurnKind.TOOL, TurnKind.USER


def turn(kind: TurnKind = POLICY, **changes: Any) -> Turn:
    fields: dict[str, Any] = {"messages": (), "token_ids": (5, 6), "mask": (0, 0)}
    if kind is POLICY:
        fields |= {"mask": (1, 1), "logprobs": (-0.5, -0.25), "policy_versions": (3, 3)}
    return Turn(kind=kind, **(fields | changes))


def trajectory(*turns: Turn, **changes: Any) -> Trajectory:
    fields: dict[str, Any] = {
        "id": "t",
        "sample": Sample(prompt=[{"role": "user", "content": "go"}]),
        "prompt_ids": (1, 2, 3),
        "turns": turns,
        "rewards": RewardLedger(),
        "termination": Termination.ANSWERED,
    }
    return Trajectory(**(fields | changes))


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (POLICY, {"mask": (1,)}, "mask has 1 of 2 tokens"),
        (TOOL, {"mask": (0,) * 3}, "mask has 3 of 2 tokens"),
        (POLICY, {"logprobs": (0.0,)}, "expected 2 logprobs, got 1"),
        (POLICY, {"logprobs": ()}, "expected 2 logprobs, got 0"),
        (TOOL, {"logprobs": (0.0, 0.0)}, "expected 0 logprobs, got 2"),
        (USER, {"mask": (0, 1)}, "mask must be 0"),
        (TOOL, {"mask": (1, 1)}, "mask must be 0"),
        (POLICY, {"mask": (1, 2)}, "mask must be 0, or 1"),
        (POLICY, {"policy_versions": ()}, "expected 2 policy_versions, got 0"),
    ],
)
def test_a_turn_that_breaks_an_invariant_cannot_be_made(
    kind: TurnKind, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        turn(kind, **changes)


def test_the_views_of_a_trajectory_have_one_length_and_line_up() -> None:
    found = trajectory(turn(), turn(TOOL, token_ids=(7,), mask=(0,)), turn(token_ids=(8, 9)))
    assert found.token_ids == [1, 2, 3, 5, 6, 7, 8, 9]
    assert found.response_mask == [0, 0, 0, 1, 1, 0, 1, 1]
    assert found.logprobs == [0.0, 0.0, 0.0, -0.5, -0.25, 0.0, -0.5, -0.25]
    assert found.response_length == 5


def test_the_answer_is_the_last_turn_that_called_nothing() -> None:
    said = turn(messages=({"role": "assistant", "content": "4"},))
    called = turn(messages=({"role": "assistant", "content": "hm", "tool_calls": [{}]},))
    assert trajectory(said, called).answer == "4"
    assert trajectory(called).answer == ""


def test_a_group_keeps_what_was_not_dropped() -> None:
    good, bad = trajectory(), trajectory(dropped=True)
    assert Group(id="g", sample=good.sample, trajectories=(bad, good)).kept == (good,)


def test_the_longest_source_gives_the_weight() -> None:
    sources = ["task", "tool/a", "tool/b", "tool_step/a", "interaction", "interaction_turn"]
    entries = [RewardEntry(source=source, value=1.0) for source in sources]
    ledger = weigh(entries, {"tool": 0.5, "tool/b": 0.25, "interaction": 0.0})
    assert {e.source: e.weight for e in ledger} == {
        "task": 1.0,
        "tool/a": 0.5,
        "tool/b": 0.25,
        "tool_step/a": 1.0,
        "interaction": 0.0,
        "interaction_turn": 1.0,
    }
    assert ledger.total == 1.0 + 0.5 + 0.25 + 1.0 + 1.0


def test_a_ledger_sums_a_source_and_what_lies_below_it() -> None:
    values = [("tool/a", 1.0), ("tool/a", 2.0), ("tool/ab", 4.0), ("tool_step/a", 8.0)]
    ledger = weigh([RewardEntry(source=s, value=v) for s, v in values], {"tool": 0.0})
    assert (ledger.of("tool"), ledger.of("tool/a"), ledger.of("tool_step")) == (7.0, 3.0, 8.0)


def test_seeds_depend_on_every_part_and_on_nothing_else() -> None:
    assert derive_seed(0, "a", 1) == derive_seed(0, "a", 1)
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert len({derive_seed(a, b) for a in range(10) for b in range(10)}) == 100
    assert all(0 <= derive_seed(i) < 2**63 for i in range(100))
