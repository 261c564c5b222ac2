"""Chat messages: typed dictionaries in the OpenAI form, as chat templates take them.

`content` is text, or a list of parts where a message shows images or videos beside its text. An
assistant message may carry `tool_calls` with *parsed* arguments, which is what Hugging Face
templates render. A tool message carries `tool_call_id` and `name`.
"""

from typing import Any, Literal, NotRequired, TypedDict

from agentrl.contracts.media import Media


class TextPart(TypedDict):
    """A stretch of text."""

    type: Literal["text"]
    text: str


class ImagePart(TypedDict):
    """An image at its place in the text."""

    type: Literal["image"]
    image: Media


class VideoPart(TypedDict):
    """A video at its place in the text."""

    type: Literal["video"]
    video: Media


ContentPart = TextPart | ImagePart | VideoPart
Content = str | list[ContentPart] | None


class FunctionCall(TypedDict):
    """The function of a tool call, with parsed arguments."""

    name: str
    arguments: dict[str, Any]


class ToolCallMessage(TypedDict):
    """One tool call of an assistant message."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class Message(TypedDict):
    """One message; `role` is `system | user | assistant | tool`."""

    role: str
    content: Content
    tool_calls: NotRequired[list[ToolCallMessage]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]
    reasoning_content: NotRequired[str]


def text_of(content: Content) -> str:
    """Return the text of a message's content, its parts joined."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part["text"] for part in content if part["type"] == "text")


def media_of(content: Content) -> tuple[Media, ...]:
    """Return the images and videos of a message's content, in order."""
    if content is None or isinstance(content, str):
        return ()
    return tuple(
        part["image"] if part["type"] == "image" else part["video"]
        for part in content
        if part["type"] != "text"
    )
