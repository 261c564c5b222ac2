"""Traces on disk: one group a record, one gzip member a record, appended to `*.jsonl.gz`.

Any gzip reads the file (`zcat traces/train.jsonl.gz | jq`). Each member's header says how long
the member is, so that members are skipped without unpacking them, and one that a crash tore is
known by what it lacks: readers leave it out, the next writer cuts it off.

    1f 8b 08 04 | time, flags (6) | 12 | "AR" 8 | length (8) | deflated JSON | crc, size (8)
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from agentrl.errors import ConfigError
from agentrl.traces.record import Trace, from_json, to_json

_MAGIC = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x0c\0AR\x08\0"
_LENGTH = struct.Struct("<Q")
_END = struct.Struct("<II")
_HEADER = len(_MAGIC) + _LENGTH.size
_LEVEL = 6


def append_trace(path: Path, trace: Trace) -> int:
    """Append one record, making the file if needed; return the file's new length.

    Raises:
        OSError: the disk is full or not writable; the file is as it was before.
    """
    line = to_json(trace)
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = packer.compress(line) + packer.flush()
    end = _END.pack(zlib.crc32(line), len(line) & 0xFFFFFFFF)
    length = _HEADER + len(body) + len(end)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            rest = memoryview(_MAGIC + _LENGTH.pack(length) + body + end)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(before)
            raise
    return before + length


def cut_torn(path: Path) -> int:
    """Cut off a last record that a crash tore; return the file's length.

    Raises:
        ConfigError: the file holds something else than traces.
        OSError: it cannot be written.
    """
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        whole = max((end for _, end in _members(file, path)), default=0)
        file.truncate(whole)
    return whole


def read_traces(path: Path) -> Iterator[Trace]:
    """Yield the traces of a file in order, also while it is written; a torn last one is left out.

    Raises:
        ConfigError: the file cannot be read, or holds something else than traces.
    """
    try:
        with path.open("rb") as file:
            for number, (start, end) in enumerate(_members(file, path), start=1):
                file.seek(start)
                yield _read(file.read(end - start), f"traces file {path}, record {number}")
    except OSError as error:
        raise ConfigError(f"traces file {path}: {error.strerror or error}") from error


def _read(member: bytes, where: str) -> Trace:
    try:
        return from_json(zlib.decompress(member, wbits=16 + zlib.MAX_WBITS))
    except (zlib.error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{where}: not a trace of this version: {type(error).__name__}: {error}"
        ) from error


def _members(file: BinaryIO, path: Path) -> Iterator[tuple[int, int]]:
    """Yield where each whole record begins and ends."""
    start, size = 0, file.seek(0, 2)
    while start < size:
        file.seek(start)
        header = file.read(_HEADER)
        if not header.startswith(_MAGIC[: len(header)]):
            old = "; agentrl 0.1.0 reads traces of version 1" if header.startswith(b"{") else ""
            raise ConfigError(f"traces file {path}: byte {start} begins no record{old}")
        if len(header) < _HEADER:
            return
        end = start + _LENGTH.unpack(header[len(_MAGIC) :])[0]
        if end > size:
            return
        yield start, end
        start = end
