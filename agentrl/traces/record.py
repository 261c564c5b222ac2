"""A recorded group as one line of JSON: all that it takes to read or replay it, no bit lost.

Long streams are base64 of little-endian arrays, masks and versions are runs `[value, count]`,
media are digests. What JSON cannot hold of a plugin's metrics or a row's columns becomes text.
"""

import base64
import hashlib
import json
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from math import isfinite
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from agentrl.contracts.media import Media
from agentrl.contracts.message import Message
from agentrl.contracts.sample import Sample
from agentrl.contracts.trajectory import Group, Turn
from agentrl.errors import RolloutError, boundary

VERSION = 2
_ARRAYS = {"token_ids": "<i4", "logprobs": "<f4"}
_RUNS = ("mask", "versions")
_SHARED = ("sample", "tool_schemas")
_DEEPEST = 200
_WIDEST = 14_000
"""Bits of a number that Python still reads from its decimal digits (4,300)."""

Split = Literal["train", "eval"]
Fate = Literal["trained", "stale", "refilled", "refused", "surplus", "eval"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """A group, where it belongs in the run, and what became of it."""

    step: int
    split: Split
    fate: Fate
    group: Group


def to_json(trace: Trace) -> bytes:
    """Return a trace as one line; what all members of the group have alike stands there once."""
    tree = {"version": VERSION, **_plain(trace)}
    group, members = tree["group"], tree["group"]["trajectories"]
    group["tool_schemas"] = members[0]["tool_schemas"] if members else []
    for member in members:
        for name in _SHARED:
            if member[name] == group[name]:
                del member[name]
    try:
        line = json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which an escape alone can hold
        line = json.dumps(tree, separators=(",", ":")).encode()
    return line + b"\n"


def from_json(line: bytes) -> Trace:
    """Read a trace back.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it is none of this version.
    """
    tree = json.loads(line)
    if (version := tree.pop("version")) != VERSION:
        raise ValueError(f"expected version {VERSION}, got {version}")
    group = tree["group"]
    shared = {"sample": _read(Sample, group["sample"]), "tool_schemas": group.pop("tool_schemas")}
    members = [shared | member for member in group["trajectories"]]
    tree["group"] = group | {"sample": shared["sample"], "trajectories": members}
    trace: Trace = _read(Trace, tree)
    return trace


def _plain(value: Any, depth: int = 0) -> Any:
    """Return what JSON can hold of a value."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, float) and isfinite(value):
        return value
    if isinstance(value, int):
        return value if value.bit_length() < _WIDEST else hex(value)
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            return {_text(key): _plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [_plain(item, depth + 1) for item in value]
        if is_dataclass(value) and not isinstance(value, type):
            streams = _streams(value) if isinstance(value, Turn) else {}
            names = [f.name for f in fields(value) if f.compare and f.name not in streams]
            return {name: _plain(getattr(value, name), depth + 1) for name in names} | streams
    return _text(value)


def _streams(turn: Turn) -> dict[str, Any]:
    streams: dict[str, Any] = {
        name: base64.b64encode(getattr(turn, name).astype(dtype).tobytes()).decode()
        for name, dtype in _ARRAYS.items()
    }
    for name in _RUNS:
        values = getattr(turn, name)
        changes = np.flatnonzero(values[1:] != values[:-1]) + 1
        starts = np.concatenate([[0], changes])[: len(values)]
        counts = np.diff(starts, append=len(values))
        streams[name] = [
            [int(values[start]), int(n)] for start, n in zip(starts, counts, strict=True)
        ]
    return streams


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray):
        return f"{len(value)} bytes, sha256:{hashlib.sha256(value).hexdigest()}"
    try:
        with boundary("text"):
            return str(value)
    except RolloutError:
        return object.__repr__(value)


def _read(hint: Any, value: Any) -> Any:
    """Return what JSON held of a value with this type; unions other than with None stay plain."""
    kinds = [kind for kind in get_args(hint) if kind is not types.NoneType]
    if value is None or is_dataclass(value):
        return value
    if isinstance(hint, types.UnionType):
        return _read(kinds[0], value) if len(kinds) == 1 else value
    if get_origin(hint) is tuple:
        return tuple(_read(kinds[0], item) for item in value)
    if get_origin(hint) is list:
        return [_read(kinds[0], item) for item in value]
    if hint is Message:
        return value | {"content": _read_content(value["content"])}
    if not isinstance(hint, type):
        return value
    if issubclass(hint, StrEnum):
        return hint(value)
    if is_dataclass(hint):
        if hint is Turn:
            value = value | _read_streams(value)
        return hint(**{name: _read(_hints(hint)[name], item) for name, item in value.items()})
    return value


_hints = cache(get_type_hints)


def _read_streams(turn: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {
        name: np.frombuffer(base64.b64decode(turn[name]), dtype) for name, dtype in _ARRAYS.items()
    }
    runs = {name: np.asarray(turn[name], np.int32).reshape(-1, 2) for name in _RUNS}
    return arrays | {name: np.repeat(run[:, 0], run[:, 1]) for name, run in runs.items()}


def _read_content(content: Any) -> Any:
    """Put the media back among the parts of a message."""
    if not isinstance(content, list):
        return content
    return [
        part | {kind: _read(Media, part[kind])}
        if (kind := part["type"]) in ("image", "video") and isinstance(part.get(kind), dict)
        else part
        for part in content
    ]
