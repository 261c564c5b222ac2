"""Trajectories and groups made by hand, for tests of rewards and traces."""

from collections.abc import Callable, Sequence
from typing import Any

from agentrl.contracts.reward import RewardEntry, RewardLedger
from agentrl.contracts.sample import Sample
from agentrl.contracts.sandbox import Sandbox
from agentrl.contracts.task import BaseTask
from agentrl.contracts.tool import ToolCall, ToolOutcome, ToolRecord
from agentrl.contracts.trajectory import Group, Termination, Trajectory, Turn, TurnKind
from agentrl.data.sample import read_sample

ROW = {"prompt": [{"role": "user", "content": "2+3?"}], "answer": "5", "level": 4}


def a_sample(**columns: Any) -> Sample:
    return read_sample({**ROW, **columns}, index=0)


def a_call(outcome: ToolOutcome = ToolOutcome.OK) -> ToolRecord:
    call = ToolCall(id="c0", name="add", arguments={"a": 2, "b": 3})
    return ToolRecord(call=call, outcome=outcome, response="5")


def a_trajectory(
    answer: str = "5",
    *,
    id: str = "g-0",
    sample: Sample | None = None,
    calls: Sequence[ToolRecord] = (),
    entries: Sequence[RewardEntry] = (),
    **fields: Any,
) -> Trajectory:
    """A prompt of two tokens, a turn that calls a tool, what it returned, and an answer."""
    sample = sample or a_sample()
    function = {"name": "add", "arguments": {"a": 2, "b": 3}}
    calling = {"id": "c0", "type": "function", "function": function}
    turns = (
        Turn(kind=TurnKind.PROMPT, messages=tuple(sample.prompt), token_ids=[1, 2]),
        policy_turn(
            {"role": "assistant", "content": "I add.", "tool_calls": [calling]}, parent=0, kept=2
        ),
        Turn(
            kind=TurnKind.TOOL,
            messages=({"role": "tool", "content": "5", "name": "add", "tool_call_id": "c0"},),
            token_ids=[6],
            tool_records=tuple(calls),
            parent=1,
            kept=5,
        ),
        policy_turn({"role": "assistant", "content": answer}, parent=2, kept=6),
    )
    return Trajectory(
        id=id,
        sample=sample,
        turns=turns,
        rewards=RewardLedger(tuple(entries)),
        **{"termination": Termination.ANSWERED, **fields},
    )


def policy_turn(message: Any, *, parent: int, kept: int) -> Turn:
    return Turn(
        kind=TurnKind.POLICY,
        messages=(message,),
        token_ids=[3, 4, 5],
        mask=[1, 1, 1],
        logprobs=[-0.1, -0.25, -3.0e-7],
        versions=[7, 7, 8],
        parent=parent,
        kept=kept,
        duration_s=0.1,
    )


def a_group(*answers: str, sample: Sample | None = None, **fields: Any) -> Group:
    sample = sample or a_sample()
    members = tuple(
        a_trajectory(answer, id=f"g-{i}", sample=sample, **fields)
        for i, answer in enumerate(answers)
    )
    return Group(id="g", sample=sample, trajectories=members)


class ScoringTask(BaseTask):
    """Has no samples, and scores as it is told."""

    def __init__(self, score: Callable[[Trajectory], float] = lambda trajectory: 1.0) -> None:
        super().__init__({}, train=None, test=None, seed=0)
        self._score = score

    def samples(self, split: str) -> Sequence[Sample]:
        return []

    async def score(self, trajectory: Trajectory, services: Any) -> float:
        return self._score(trajectory)


class NoSandbox:
    async def sandbox(self) -> Sandbox:
        raise AssertionError("no sandbox in this test")
