from pathlib import Path

import pytest
from tests_support import Adder, Teacher, calls, make_rollout, said, sample

from agentrl.errors import ConfigError
from agentrl.rollout.render import Renderer
from agentrl.traces.store import Trace, group_traces, read_traces, write_traces
from agentrl.traces.transcript import transcript


async def recorded(renderer: Renderer) -> list[Trace]:
    script = said(renderer, calls({"a": 1, "b": 2}), "wrong", "right – ünïcode")
    rollout = make_rollout(renderer, script, Adder(reward=0.1), teacher=Teacher())
    async with rollout:
        group = await rollout.run_group(
            sample(ground_truth={"x": [1.5]}), group_id="g", size=2, seed=0
        )
    return list(group_traces(3, "train", [group]))


async def test_trajectories_come_back_exactly(tmp_path: Path, renderer: Renderer) -> None:
    traces = await recorded(renderer)
    write_traces(tmp_path / "a.jsonl", traces[:1])
    write_traces(tmp_path / "a.jsonl", traces[1:])
    assert list(read_traces(tmp_path / "a.jsonl")) == traces


async def test_a_torn_last_line_is_left_out_and_the_next_starts_anew(
    tmp_path: Path, renderer: Renderer
) -> None:
    traces = await recorded(renderer)
    path = tmp_path / "a.jsonl"
    write_traces(path, traces)
    path.write_bytes(path.read_bytes()[:-50])
    assert list(read_traces(path)) == traces[:1]
    write_traces(path, traces[1:])
    assert list(read_traces(path)) == traces


def test_a_line_that_is_not_a_trace_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(ConfigError, match=r"a\.jsonl, line 1"):
        list(read_traces(tmp_path / "a.jsonl"))


async def test_a_transcript_tells_the_whole_dialogue(renderer: Renderer) -> None:
    text = transcript((await recorded(renderer))[0].trajectory)
    for part in ("[user] go", "[assistant calls add] {'a': 1, 'b': 2}", "ok", "] 3", "try again"):
        assert part in text
    assert "interaction_end: reward" in text
