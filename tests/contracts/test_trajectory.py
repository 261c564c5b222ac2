from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agentrl.contracts.reward import RewardEntry, RewardLedger, weigh
from agentrl.contracts.sample import Sample
from agentrl.contracts.trajectory import Group, Termination, Trajectory, Turn, TurnKind
from agentrl.seed import derive_seed

PROMPT, POLICY, TOOL, USER = TurnKind


def turn(kind: TurnKind = POLICY, **changes: Any) -> Turn:
    fields: dict[str, Any] = {"messages": (), "token_ids": (5, 6), "parent": 0}
    if kind is POLICY:
        fields |= {"mask": (1, 1), "logprobs": (-0.5, -0.25), "versions": (3, 3)}
    return Turn(kind=kind, **(fields | changes))


def trajectory(*turns: Turn, **changes: Any) -> Trajectory:
    """Put turns behind a prompt of three tokens; one follows the other."""
    placed = [Turn(kind=PROMPT, messages=(), token_ids=[1, 2, 3])]
    length = 3
    for index, one in enumerate(turns):
        placed.append(replace(one, parent=index, kept=length))
        length += len(one.token_ids)
    return grown(*placed, **changes)


def grown(*turns: Turn, **changes: Any) -> Trajectory:
    fields: dict[str, Any] = {
        "id": "t",
        "sample": Sample(prompt=[{"role": "user", "content": "go"}]),
        "turns": turns,
        "rewards": RewardLedger(),
        "termination": Termination.ANSWERED,
    }
    return Trajectory(**(fields | changes))


def rewritten() -> Trajectory:
    """The user's turn strips `6` from the policy's first turn and begins a branch inside it."""
    return grown(
        Turn(kind=PROMPT, messages=(), token_ids=[1, 2, 3]),
        turn(kept=3),
        turn(USER, token_ids=(7, 8), parent=1, kept=4),
        turn(token_ids=(9, 4), parent=2, kept=6),
    )


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
        (POLICY, {"versions": ()}, "expected 2 versions, got 0"),
        (POLICY, {"parent": None}, "the prompt alone has no parent"),
        (PROMPT, {}, "the prompt alone has no parent"),
    ],
)
def test_a_turn_that_breaks_an_invariant_cannot_be_made(
    kind: TurnKind, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        turn(kind, **changes)


def test_streams_are_frozen_copies_of_what_was_given() -> None:
    ids = np.array([5, 6])
    made = turn(token_ids=ids)
    ids[0] = 9
    assert made.token_ids.tolist() == [5, 6]
    assert (made.token_ids.dtype, made.logprobs.dtype, made.mask.dtype) == (
        np.int32,
        np.float32,
        np.uint8,
    )
    with pytest.raises(ValueError, match="read-only"):
        made.token_ids[0] = 1


def test_turns_are_equal_when_their_streams_are() -> None:
    assert turn() == turn()
    assert turn() != turn(logprobs=(-0.5, -0.5))
    assert turn() != turn(kept=1)


def test_the_streams_of_a_branch_have_one_length_and_line_up() -> None:
    found = trajectory(turn(), turn(TOOL, token_ids=(7,)), turn(token_ids=(8, 9)))
    branch = found.branch(3)
    assert branch.token_ids.tolist() == found.token_ids.tolist() == [1, 2, 3, 5, 6, 7, 8, 9]
    assert branch.mask.tolist() == [0, 0, 0, 1, 1, 0, 1, 1]
    assert branch.logprobs.tolist() == [0.0, 0.0, 0.0, -0.5, -0.25, 0.0, -0.5, -0.25]
    assert branch.versions.tolist() == [0, 0, 0, 3, 3, 0, 3, 3]
    assert (branch.turns, branch.turn_starts) == ((0, 1, 2, 3), (0, 3, 5, 6))
    assert (found.leaves, found.response_length) == ((3,), 5)


def test_a_rewritten_history_gives_a_branch_that_shares_its_beginning() -> None:
    found = rewritten()
    assert found.leaves == (1, 3)
    assert found.branch(1).token_ids.tolist() == [1, 2, 3, 5, 6]
    branch = found.branch(3)
    assert branch.token_ids.tolist() == [1, 2, 3, 5, 7, 8, 9, 4]
    assert branch.mask.tolist() == [0, 0, 0, 1, 0, 0, 1, 1]
    assert (branch.turns, branch.turn_starts) == ((0, 1, 2, 3), (0, 3, 4, 6))


def test_a_branch_passes_over_a_turn_of_which_it_keeps_nothing() -> None:
    found = grown(
        Turn(kind=PROMPT, messages=(), token_ids=[1, 2, 3]),
        turn(kept=3),
        turn(USER, token_ids=(7,), parent=1, kept=2),
    )
    branch = found.branch(2)
    assert (branch.token_ids.tolist(), branch.turns) == ([1, 2, 7], (0, 2))


def test_two_turns_on_one_parent_are_two_leaves() -> None:
    found = grown(
        Turn(kind=PROMPT, messages=(), token_ids=[1]),
        turn(kept=1, messages=({"role": "assistant", "content": "a"},)),
        turn(kept=1, messages=({"role": "assistant", "content": "b"},)),
    )
    assert found.leaves == (1, 2)
    assert [m["content"] for m in found.messages] == ["b"]


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ((), "expected the prompt"),
        ((turn(),), "expected the prompt"),
        ((Turn(kind=PROMPT, messages=(), token_ids=[1]), turn(parent=1)), "is not before it"),
        ((Turn(kind=PROMPT, messages=(), token_ids=[1]), turn(kept=2)), "keeps 2 tokens"),
    ],
)
def test_a_tree_that_hangs_together_wrongly_cannot_be_made(
    turns: tuple[Turn, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        grown(*turns)


def test_the_answer_is_the_last_turn_that_called_nothing() -> None:
    said = turn(messages=({"role": "assistant", "content": "4"},))
    called = turn(messages=({"role": "assistant", "content": "hm", "tool_calls": [{}]},))
    assert trajectory(said, called).answer == "4"
    assert trajectory(called).answer == ""


def test_a_call_that_could_not_be_read_is_no_answer() -> None:
    said = turn(messages=({"role": "assistant", "content": "4"},))
    broken = turn(messages=({"role": "assistant", "content": "<tool_call>?</tool_call>"},))
    assert trajectory(said, broken, turn(TOOL)).answer == "4"


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
