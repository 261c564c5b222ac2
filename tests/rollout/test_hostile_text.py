from pathlib import Path
from typing import Any

import pytest
from tests_support import Adder, Teacher, calls, make_rollout, roll, said

from agentrl.contracts.message import Message
from agentrl.contracts.tool import ToolOutcome
from agentrl.contracts.trajectory import Group, Termination, Trajectory
from agentrl.templates.formats.hermes import parse_tool_calls
from agentrl.templates.render import Renderer
from agentrl.traces.record import Trace
from agentrl.traces.store import append_trace, read_traces

HOSTILE = [
    ('{"name": "add", "arguments": {"a": %s}}' % ("9" * 5000), "not valid JSON"),
    ('{"name": "add", "arguments": ' + "[" * 100_000, "not valid JSON"),
    ('{"name": "add", "arguments": ' + '{"a":' * 100_000, "not valid JSON"),
    ('{"name": "add", "arguments": {"a": NaN}}', "not valid JSON"),
    ('{"name": "add", "arguments": {"a": -Infinity}}', "not valid JSON"),
    ('{"name": "add", "arguments": {"a": "\\ud83d"}}', "lone surrogate"),
    ('{"name": "\\ud83d", "arguments": {}}', "lone surrogate"),
    ('{"name": "add", "arguments": "{\\"a\\": %s}"}' % ("9" * 5000), "not valid JSON"),
    ('{"name": "add", "arguments": "{\\"a\\": NaN}"}', "not valid JSON"),
    ('{"name": "add", "arguments": "{\\"a\\": \\"\\\\ud83d\\"}"}', "lone surrogate"),
]


def round_trip(trajectory: Trajectory, folder: Path) -> Trajectory:
    group = Group(id="g", sample=trajectory.sample, trajectories=(trajectory,))
    trace = Trace(step=0, split="train", fate="trained", group=group)
    append_trace(folder / "t.jsonl.gz", trace)
    (read,) = read_traces(folder / "t.jsonl.gz")
    return read.group.trajectories[0]


@pytest.mark.parametrize(("body", "why"), HOSTILE, ids=range(len(HOSTILE)))
def test_json_that_python_cannot_hold_is_a_broken_call(body: str, why: str) -> None:
    (call,) = parse_tool_calls(f"<tool_call>{body}</tool_call>").calls
    assert call.error is not None
    assert why in call.error
    assert call.arguments == {}
    call.name.encode()


def test_a_whole_surrogate_pair_is_one_character() -> None:
    text = '<tool_call>{"name": "t", "arguments": {"a": "\\ud83c\\udfb2"}}</tool_call>'
    assert parse_tool_calls(text).calls[0].arguments == {"a": "🎲"}


async def test_a_call_with_a_lone_surrogate_is_answered_and_recorded(
    renderer: Renderer, tmp_path: Path
) -> None:
    written = {"role": "assistant", "content": f"<tool_call>{HOSTILE[5][0]}</tool_call>"}
    trajectory = await roll(make_rollout(renderer, said(renderer, written, "bye"), Adder()))
    assert trajectory.termination is Termination.ANSWERED
    assert trajectory.tool_records[0].outcome is ToolOutcome.MODEL_ERROR
    assert round_trip(trajectory, tmp_path) == trajectory


async def test_a_response_with_a_lone_surrogate_is_shown_with_a_mark(
    renderer: Renderer, tmp_path: Path
) -> None:
    tool = Adder(behave=lambda p: "good \ud83d bad")
    trajectory = await roll(make_rollout(renderer, said(renderer, calls({"a": 1}), "x"), tool))
    assert trajectory.tool_records[0].response == "good ? bad"
    assert round_trip(trajectory, tmp_path) == trajectory


async def test_an_answer_with_a_lone_surrogate_is_shown_with_a_mark(
    renderer: Renderer, tmp_path: Path
) -> None:
    class Broken(Teacher):
        async def generate_response(
            self, instance_id: str, messages: list[Message], **kwargs: Any
        ) -> tuple[bool, str, float, dict[str, Any]]:
            return len(messages) > 2, "hm \ud83d", 0.0, {}

    trajectory = await roll(make_rollout(renderer, said(renderer, "a", "b"), teacher=Broken()))
    assert trajectory.turns[2].messages[0]["content"] == "hm ?"
    assert round_trip(trajectory, tmp_path) == trajectory


async def test_metrics_that_json_cannot_hold_are_recorded_as_text(
    renderer: Renderer, tmp_path: Path
) -> None:
    from agentrl.contracts.tool import ToolResponse

    class Measuring(Adder):
        async def execute(self, instance_id: str, parameters: dict[str, Any], **kwargs: Any) -> Any:
            return ToolResponse(text="x"), 0.0, {"kind": complex(1, 2), "text": "\ud83d"}

    script = said(renderer, calls({"a": 1}), "x")
    trajectory = await roll(make_rollout(renderer, script, Measuring()))
    (record,) = round_trip(trajectory, tmp_path).tool_records
    assert record.metrics["kind"] == "(1+2j)"


async def test_the_deepest_and_longest_arguments_are_recorded(
    renderer: Renderer, tmp_path: Path
) -> None:
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    script = said(renderer, calls({"a": int("9" * 4000), "deep": deep}), "x")
    config = {"max_response_tokens": 9000}
    trajectory = await roll(
        make_rollout(renderer, script, Adder(behave=lambda p: 1), config=config)
    )
    assert trajectory.tool_records[0].outcome is ToolOutcome.OK
    assert round_trip(trajectory, tmp_path) == trajectory
