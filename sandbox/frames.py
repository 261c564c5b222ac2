"""The framed protocol that the fork server speaks over its standard input and output.

A frame is two big-endian 32-bit lengths, a JSON header, and a body that holds the header's blobs
one after the other (`header["blobs"]` lists their sizes). The host's twin of this module is
`agentrl/sandbox/frames.py`; a test holds the two together.
"""

import json
import os
import struct

PREFIX = struct.Struct(">II")
LARGEST_BODY = 256 * 1024 * 1024


def encode(header, blobs=()):
    """Return the bytes of one frame."""
    text = json.dumps({**header, "blobs": [len(b) for b in blobs]}).encode()
    return b"".join([PREFIX.pack(len(text), sum(map(len, blobs))), text, *blobs])


class Decoder:
    """Collects bytes as they come and yields whole frames as (header, blobs)."""

    def __init__(self):
        self._buffer = bytearray()

    def feed(self, data):
        """Take bytes; yield each frame that is now complete."""
        self._buffer += data
        while True:
            frame = self._take()
            if frame is None:
                return
            yield frame

    def _take(self):
        if len(self._buffer) < PREFIX.size:
            return None
        header_size, body_size = PREFIX.unpack_from(self._buffer)
        if body_size > LARGEST_BODY:
            raise ValueError(f"frame body of {body_size} bytes, at most {LARGEST_BODY} expected")
        end = PREFIX.size + header_size + body_size
        if len(self._buffer) < end:
            return None
        header = json.loads(bytes(self._buffer[PREFIX.size : PREFIX.size + header_size]))
        body = bytes(self._buffer[PREFIX.size + header_size : end])
        del self._buffer[:end]
        blobs, start = [], 0
        for size in header.pop("blobs"):
            blobs.append(body[start : start + size])
            start += size
        return header, blobs


def write_all(fd, data):
    """Write every byte to a blocking descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
