"""Trajectories as JSON lines: one object a line, everything in it, read back exactly.

Lines are flushed group by group. A line torn by a crash can only be the last one; readers leave
it out and the next writer starts a new line.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from agentrl.contracts.trajectory import Group, Trajectory
from agentrl.errors import ConfigError

Recorded = Literal["train", "eval"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """A recorded trajectory and where it belongs in the run."""

    step: int
    split: Recorded
    group: str
    trajectory: Trajectory


def group_traces(step: int, split: Recorded, groups: Iterable[Group]) -> Iterator[Trace]:
    """Yield a trace for every trajectory of some groups."""
    for group in groups:
        for trajectory in group.trajectories:
            yield Trace(step=step, split=split, group=group.id, trajectory=trajectory)


_ADAPTER: TypeAdapter[Trace] = TypeAdapter(Trace)


def write_traces(path: Path, traces: Iterable[Trace]) -> None:
    """Append traces to a file, making it if needed.

    Raises:
        OSError: the disk is full or not writable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = b"".join(_line(trace) + b"\n" for trace in traces)
    with path.open("ab") as file:
        if file.tell() and not _ends_in_newline(path):
            lines = b"\n" + lines
        file.write(lines)


def read_traces(path: Path) -> Iterator[Trace]:
    """Yield the traces of a file, in order; a torn last line is left out.

    Raises:
        ConfigError: the file cannot be read or a line is not a trace.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ConfigError(f"traces file {path}: {error.strerror or error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield _ADAPTER.validate_json(line)
        except ValidationError as error:
            if _is_torn(line):
                continue
            fault = error.errors()[0]
            raise ConfigError(
                f"traces file {path}, line {number}: not a trace of this version: "
                f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
            ) from None


def _line(trace: Trace) -> bytes:
    try:
        return _ADAPTER.dump_json(trace)
    except ValueError:
        # A plugin's metrics or error text may hold what JSON cannot: recorded as text.
        tree = _ADAPTER.dump_python(trace, warnings=False)
        return json.dumps(tree, ensure_ascii=False, default=str).encode(errors="replace")


def _ends_in_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def _is_torn(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return True
    return False
