import gzip
import json
from pathlib import Path

import pytest
from rewards_support import a_group

from agentrl.errors import ConfigError
from agentrl.traces.record import Trace
from agentrl.traces.store import append_trace, cut_torn, read_traces


def trace(step: int) -> Trace:
    return Trace(step=step, split="train", fate="trained", group=a_group("5", "6"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traces" / "train.jsonl.gz"


def steps(path: Path) -> list[int]:
    return [t.step for t in read_traces(path)]


def test_records_come_back_in_order(path: Path) -> None:
    for step in range(3):
        append_trace(path, trace(step))
    assert list(read_traces(path)) == [trace(0), trace(1), trace(2)]


def test_any_gzip_reads_the_file(path: Path) -> None:
    append_trace(path, trace(0))
    append_trace(path, trace(1))
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        assert [json.loads(line)["step"] for line in lines] == [0, 1]


def test_a_crash_at_any_byte_of_the_last_record_loses_that_record_alone(path: Path) -> None:
    first = append_trace(path, trace(0))
    whole = append_trace(path, trace(1))
    data = path.read_bytes()
    for size in range(first, whole):
        path.write_bytes(data[:size])
        assert steps(path) == [0]
        assert cut_torn(path) == first
        append_trace(path, trace(1))
        assert path.read_bytes() == data


def test_a_file_cut_at_a_remembered_length_holds_what_it_held_then(path: Path) -> None:
    lengths = [append_trace(path, trace(step)) for step in range(3)]
    with path.open("r+b") as file:
        file.truncate(lengths[1])
    assert steps(path) == [0, 1]
    assert cut_torn(path) == lengths[1]
    assert append_trace(path, trace(2)) == lengths[2]


def test_a_reader_sees_what_is_added_while_it_reads(path: Path) -> None:
    append_trace(path, trace(0))
    seen = read_traces(path)
    next(seen)
    append_trace(path, trace(1))
    assert [t.step for t in read_traces(path)] == [0, 1]


def test_nothing_is_there_before_the_first_record(path: Path) -> None:
    assert cut_torn(path) == 0
    assert not path.exists()
    with pytest.raises(ConfigError, match="No such file"):
        list(read_traces(path))


def test_a_disk_that_fills_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = append_trace(path, trace(0))
    opened = Path.open

    class Full:
        def __init__(self, file: object) -> None:
            self.file = file
            self.written = 0

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def write(self, data: memoryview) -> int:
            if self.written:
                raise OSError(28, "No space left on device")
            self.written = self.file.write(data[:100])  # type: ignore[attr-defined]
            return self.written

    monkeypatch.setattr(Path, "open", lambda self, *a, **k: Full(opened(self, *a, **k)))
    with pytest.raises(OSError, match="No space left"):
        append_trace(path, trace(1))
    monkeypatch.undo()
    assert path.stat().st_size == before
    assert steps(path) == [0]


def test_traces_of_the_first_version_name_the_release_that_reads_them(tmp_path: Path) -> None:
    (tmp_path / "old.jsonl").write_text('{"step": 1, "split": "train", "group": "g"}\n')
    with pytest.raises(ConfigError, match=r"old\.jsonl: .* agentrl 0\.1\.0 reads .* version 1"):
        list(read_traces(tmp_path / "old.jsonl"))


def test_a_file_of_something_else_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(gzip.compress(b"{}\n"))
    with pytest.raises(ConfigError, match="byte 0 begins no record"):
        cut_torn(path)
    assert gzip.decompress(path.read_bytes()) == b"{}\n"


@pytest.mark.parametrize("place", [-6, -40])
def test_a_damaged_record_is_named(path: Path, place: int) -> None:
    append_trace(path, trace(0))
    append_trace(path, trace(1))
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"train\.jsonl\.gz, record 2: not a trace"):
        list(read_traces(path))
