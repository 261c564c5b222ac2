import io
from typing import Any

import pytest

from agentrl.contracts.media import Media
from agentrl.contracts.message import Content, media_of, text_of
from agentrl.contracts.tool import ToolResponse

CAT, FILM = Media.of("image", b"a cat"), Media.of("video", b"a film")


def test_equal_bytes_are_equal_media_and_stay_out_of_sight() -> None:
    assert Media.of("image", b"a cat") == CAT
    assert Media.of("image", b"a dog") != CAT
    assert "a cat" not in repr(CAT)


def test_what_is_read_already_is_taken_as_it_is() -> None:
    assert Media.read("image", CAT) is CAT


def test_a_picture_in_memory_is_encoded() -> None:
    image: Any = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    media = Media.read("image", image.new("RGB", (2, 3), "red"))
    with image.open(io.BytesIO(media.data)) as again:
        assert (again.format, again.size) == ("PNG", (2, 3))


def test_a_message_tells_its_text_from_its_media() -> None:
    content: Content = [
        {"type": "text", "text": "Is "},
        {"type": "image", "image": CAT},
        {"type": "video", "video": FILM},
        {"type": "text", "text": "it?"},
    ]
    assert (text_of(content), media_of(content)) == ("Is it?", (CAT, FILM))
    assert (text_of(None), media_of(None), text_of("x"), media_of("x")) == ("", (), "x", ())


def test_a_tools_response_tells_its_media() -> None:
    assert ToolResponse(image=[b"a cat"], video=[FILM]).media == (CAT, FILM)
    assert ToolResponse(text="x").media == ()


def test_a_misspelt_field_of_a_response_is_refused() -> None:
    with pytest.raises(ValueError, match="txt"):
        ToolResponse(txt="x")  # type: ignore[call-arg]
