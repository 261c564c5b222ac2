"""The host's half of the fork server's framed protocol; `sandbox/frames.py` is the guest's.

A frame is two big-endian 32-bit lengths, a JSON header, and a body of blobs whose sizes stand in
`header["blobs"]`. Frames from a guest are bounded, because a guest is not trusted.
"""

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agentrl.errors import SandboxError

PREFIX = struct.Struct(">II")
LARGEST_HEADER = 4 * 1024 * 1024
LARGEST_BODY = 256 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One message: a JSON header and binary blobs."""

    header: dict[str, Any]
    blobs: tuple[bytes, ...] = ()


def encode(header: dict[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    """Return the bytes of one frame."""
    text = json.dumps({**header, "blobs": [len(blob) for blob in blobs]}).encode()
    return b"".join([PREFIX.pack(len(text), sum(map(len, blobs))), text, *blobs])


class Decoder:
    """Collects bytes as they come and yields whole frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes; yield each frame that is now complete.

        Raises:
            SandboxError: the bytes are not frames (the guest is broken).
        """
        self._buffer += data
        while len(self._buffer) >= PREFIX.size:
            header_size, body_size = PREFIX.unpack_from(self._buffer)
            if header_size > LARGEST_HEADER or body_size > LARGEST_BODY:
                raise SandboxError(
                    f"sandbox sent a frame of {header_size} + {body_size} bytes; at most "
                    f"{LARGEST_HEADER} + {LARGEST_BODY} expected: its stream is broken"
                )
            middle = PREFIX.size + header_size
            end = middle + body_size
            if len(self._buffer) < end:
                return
            view = bytes(self._buffer[PREFIX.size : end])
            del self._buffer[:end]
            yield _parse(view[:header_size], view[header_size:])


def _parse(text: bytes, body: bytes) -> Frame:
    try:
        header = json.loads(text)
        sizes = header.pop("blobs")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SandboxError(f"sandbox sent a frame with an unreadable header: {error}") from error
    blobs, start = [], 0
    for size in sizes:
        blobs.append(body[start : start + size])
        start += size
    return Frame(header=header, blobs=tuple(blobs))
