import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from rewards_support import a_group

from agentrl.contracts.trajectory import Group
from agentrl.errors import ConfigError, RunError
from agentrl.traces import writer as writing
from agentrl.traces.record import Trace
from agentrl.traces.store import append_trace, read_traces
from agentrl.traces.writer import TraceWriter

GROUP = a_group("5", "6")
TRAIN = "train.jsonl.gz"


def steps(folder: Path, name: str = TRAIN) -> list[int]:
    return [trace.step for trace in read_traces(folder / name)]


async def record(writer: TraceWriter, step: int, group: Group = GROUP, **fields: Any) -> None:
    await writer.record(group, **{"step": step, "split": "train", "fate": "trained", **fields})


class Gate:
    """Holds every write until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.error: OSError | None = None
        monkeypatch.setattr(writing, "append_trace", self)

    def __call__(self, path: Path, trace: Trace) -> int:
        assert self.open.wait(10)
        if self.error:
            raise self.error
        return append_trace(path, trace)


async def test_groups_are_written_in_order_into_the_file_of_their_split(tmp_path: Path) -> None:
    async with TraceWriter(tmp_path) as writer:
        for step in range(5):
            await record(writer, step)
        await record(writer, 9, split="eval", fate="eval")
    assert steps(tmp_path) == [0, 1, 2, 3, 4]
    (trace,) = read_traces(tmp_path / "eval.jsonl.gz")
    assert (trace.fate, trace.group) == ("eval", GROUP)


async def test_sizes_are_those_on_disk_once_flushed(tmp_path: Path) -> None:
    async with TraceWriter(tmp_path) as writer:
        assert writer.sizes() == {TRAIN: 0, "eval.jsonl.gz": 0}
        await record(writer, 0)
        await writer.flush()
        assert writer.sizes()[TRAIN] == (tmp_path / TRAIN).stat().st_size > 0


async def test_a_writer_goes_on_behind_what_is_there_and_cuts_what_is_torn(tmp_path: Path) -> None:
    async with TraceWriter(tmp_path) as writer:
        await record(writer, 0)
        await record(writer, 1)
    whole = (tmp_path / TRAIN).read_bytes()
    (tmp_path / TRAIN).write_bytes(whole[:-1])
    async with TraceWriter(tmp_path) as writer:
        assert writer.sizes()[TRAIN] < len(whole)
        await record(writer, 1)
    assert (tmp_path / TRAIN).read_bytes() == whole


async def test_the_loop_goes_on_while_the_disk_is_slow_until_the_queue_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    async with TraceWriter(tmp_path) as writer:
        for step in range(33):  # one in the writer's hands, 32 wait
            await record(writer, step)
            await asyncio.sleep(0)
        late = asyncio.create_task(record(writer, 33))
        await asyncio.sleep(0.05)
        assert not late.done()
        gate.open.set()
        await late
    assert steps(tmp_path) == list(range(34))


async def test_what_was_accepted_is_written_whoever_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    entered = asyncio.Event()

    async def run() -> None:
        async with TraceWriter(tmp_path) as writer:
            for step in range(3):
                await record(writer, step)
            entered.set()
            await writer.flush()

    task = asyncio.create_task(run())
    await entered.wait()
    for _ in range(3):  # in the flush, then twice while it closes
        await asyncio.sleep(0.01)
        task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done()
    gate.open.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert steps(tmp_path) == [0, 1, 2]


async def test_a_disk_error_is_raised_by_the_next_call_and_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with pytest.raises(RunError, match=r"train\.jsonl\.gz: OSError: .*No space left.*resume"):
        async with TraceWriter(tmp_path) as writer:
            for step in range(40):
                if step == 5:
                    gate.error = OSError(28, "No space left on device")
                    gate.open.set()
                await record(writer, step)
                await asyncio.sleep(0.002)
    with pytest.raises(RunError, match="No space left"):
        await writer.flush()


async def test_closing_raises_what_was_never_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    gate.error = OSError(5, "Input/output error")
    gate.open.set()
    with pytest.raises(RunError, match="Input/output error"):
        async with TraceWriter(tmp_path) as writer:
            await record(writer, 0)


async def test_a_callers_own_error_is_not_hidden_by_the_disks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    gate.error = OSError(5, "Input/output error")
    gate.open.set()
    with pytest.raises(KeyError):
        async with TraceWriter(tmp_path) as writer:
            await record(writer, 0)
            raise KeyError("mine")


async def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / TRAIN).write_text("{}")
    with pytest.raises(ConfigError, match="begins no record"):
        async with TraceWriter(tmp_path):
            raise AssertionError("never entered")
