"""The host's and the guest's halves of the framed protocol are one protocol."""

import importlib.util

import pytest

from agentrl.errors import SandboxError
from agentrl.sandbox import frames
from agentrl.sandbox.guest import guest_folder


def load_guest_frames():  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location("guest_frames", guest_folder() / "frames.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_what_one_side_writes_the_other_reads(piece: int) -> None:
    guest = load_guest_frames()
    header, blobs = {"op": "run", "id": 3}, [b"", b"\x00\xff" * 50, b"x"]
    for encode, decoder in (
        (frames.encode, guest.Decoder()),
        (guest.encode, frames.Decoder()),
    ):
        data = encode(header, blobs) * 2
        found = []
        for start in range(0, len(data), piece):
            found += list(decoder.feed(data[start : start + piece]))
        if isinstance(decoder, frames.Decoder):
            found = [(frame.header, list(frame.blobs)) for frame in found]
        assert found == [(header, blobs)] * 2


def test_a_frame_too_large_breaks_the_stream() -> None:
    decoder = frames.Decoder()
    with pytest.raises(SandboxError, match="stream is broken"):
        list(decoder.feed(b"\xff" * 8))


def test_a_header_that_is_no_json_breaks_the_stream() -> None:
    with pytest.raises(SandboxError, match="unreadable header"):
        list(frames.Decoder().feed(b"\x00\x00\x00\x02\x00\x00\x00\x00[]"))
