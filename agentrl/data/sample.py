"""From a row of a dataset to a `Sample`, with verl's column names; TRL's are taken too.

`prompt` is a list of messages, or a string that becomes one user message. `reward_model` holds the
`ground_truth`, or `answer` does. `extra_info` may carry `tools_kwargs`, `interaction_kwargs` and
`tool_selection`. `images` and `videos` take the places that `<image>`, `<video>` or parts without
a source mark in the messages; where nothing marks one, they come before the first user's text.
"""

import re
from collections.abc import Iterable, Mapping, Sized
from numbers import Integral
from typing import Any, cast

from agentrl.contracts.media import Media, MediaKind
from agentrl.contracts.message import Content, ContentPart, Message, media_of, text_of
from agentrl.contracts.sample import Sample
from agentrl.errors import ConfigError

KINDS: tuple[MediaKind, ...] = ("image", "video")
Waiting = dict[MediaKind, list[Media]]


def read_sample(row: Mapping[str, Any], *, index: int, source: str = "data") -> Sample:
    """Read a verl or TRL row. `source` and `index` name the row in errors.

    Raises:
        ConfigError: the row has no prompt, or a column has the wrong form.
    """
    where = f"{source}, row {index + 1}"
    extra = dict(_mapping(row.get("extra_info"), where, "extra_info"))
    reward_model = _mapping(
        row.get("reward_model"), where, "reward_model", such_as='{"ground_truth": "72"}'
    )
    # Data sets also number their rows with strings; those stay in `extra_info` only.
    own_index = extra.get("index")
    tools_kwargs = _mapping(extra.pop("tools_kwargs", None), where, "extra_info.tools_kwargs")
    for name, value in tools_kwargs.items():
        _mapping(value, where, f"extra_info.tools_kwargs.{name}")
    interaction_kwargs = extra.pop("interaction_kwargs", None)
    return Sample(
        prompt=_prompt(row, where),
        index=int(own_index) if isinstance(own_index, Integral) else index,
        data_source=str(row.get("data_source") or source),
        ground_truth=reward_model.get("ground_truth", row.get("answer")),
        agent_name=row.get("agent_name"),
        tools_kwargs=_without_none(tools_kwargs),
        interaction_kwargs=_without_none(
            _mapping(interaction_kwargs, where, "extra_info.interaction_kwargs")
        ),
        tool_selection=_names(extra.pop("tool_selection", None), where),
        extra_info=extra,
        columns=dict(row),
        origin=where,
    )


def _prompt(row: Mapping[str, Any], where: str) -> list[Message]:
    waiting: Waiting = {}
    for kind in KINDS:
        if (found := row.get(f"{kind}s")) is not None and len(found):
            waiting[kind] = [_media(kind, value, where) for value in found]
    messages = [_message(raw, waiting, where) for raw in _messages(row, where)]
    left = [media for kind in waiting for media in waiting[kind]]
    first = next((message for message in messages if message["role"] == "user"), None)
    if left and (first is None or any(media_of(m["content"]) for m in messages)):
        raise ConfigError(
            f"{where}: {len(left)} of its images or videos have no place in the prompt; write "
            f"`<image>` or `<video>` where each belongs"
        )
    if left and first is not None:
        text: ContentPart = {"type": "text", "text": text_of(first["content"])}
        first["content"] = [*map(_part_of, left), text]
    return messages


def _messages(row: Mapping[str, Any], where: str) -> list[Mapping[str, Any]]:
    prompt = row.get("prompt")
    if isinstance(prompt, str) and prompt.strip():
        return [{"role": "user", "content": prompt}]
    if prompt is None or isinstance(prompt, str) or (isinstance(prompt, Sized) and not len(prompt)):
        raise ConfigError(
            f"{where}: no `prompt`; expected a list of messages "
            f'[{{"role": "user", "content": "..."}}] or a string, '
            f"got columns {sorted(row)}. Rename or map the column that holds the question."
        )
    if isinstance(prompt, Mapping) or not isinstance(prompt, Iterable):
        raise ConfigError(
            f"{where}: `prompt` must be a list of messages or a string, got {type(prompt).__name__}"
        )
    messages = list(prompt)
    for message in messages:
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise ConfigError(
                f"{where}: each message of `prompt` needs `role` and `content`, got {message!r}"
            )
    return messages


def _message(raw: Mapping[str, Any], waiting: Waiting, where: str) -> Message:
    content = _content(raw["content"], waiting, where)
    return cast(Message, _without_none(raw) | {"content": content})


def _content(raw: Any, waiting: Waiting, where: str) -> Content:
    """Return text where there is nothing else, or parts."""
    if raw is None or (isinstance(raw, str) and not waiting):
        return raw
    if isinstance(raw, Mapping) or not isinstance(raw, Iterable):
        raise ConfigError(
            f"{where}: `content` must be text or a list of parts, got {type(raw).__name__}"
        )
    if isinstance(raw, str):
        pieces = re.split("|".join(f"(<{kind}>)" for kind in waiting), raw)
        marks = {f"<{kind}>": kind for kind in waiting}
        raw = [{"type": marks[p]} if p in marks else p for p in pieces if p]
    parts = [_part(part, waiting, where) for part in raw]
    return parts if media_of(parts) else text_of(parts)


def _part(raw: Any, waiting: Waiting, where: str) -> ContentPart:
    part = {"type": "text", "text": raw} if isinstance(raw, str) else _mapping(raw, where, "part")
    source = _without_none(part)
    kind = str(source.pop("type", None)).removesuffix("_url")
    if kind == "text":
        return {"type": "text", "text": str(source.get("text", ""))}
    if kind not in KINDS:
        raise ConfigError(
            f"{where}: a part of a message has the type {part.get('type')!r}; expected text, "
            f"image, image_url, video or video_url"
        )
    if source:
        return _part_of(_media(kind, source, where))
    if not waiting.get(kind):
        raise ConfigError(
            f"{where}: the prompt has more places for {kind}s than the column `{kind}s` has entries"
        )
    return _part_of(waiting[kind].pop(0))


def _part_of(media: Media) -> ContentPart:
    if media.kind == "image":
        return {"type": "image", "image": media}
    return {"type": "video", "video": media}


def _media(kind: MediaKind, value: Any, where: str) -> Media:
    try:
        return Media.read(kind, value)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: its {kind} cannot be read: {error}") from error


def _mapping(value: Any, where: str, column: str, *, such_as: str = "") -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        example = f" such as {such_as}" if such_as else ""
        raise ConfigError(
            f"{where}: `{column}` must be a mapping{example}, got {type(value).__name__}"
        )
    return value


def _names(value: Any, where: str) -> list[str] | None:
    if value is None:
        return None
    listed = isinstance(value, Iterable) and not isinstance(value, str | Mapping)
    if not listed or not all(isinstance(name, str) for name in value):
        raise ConfigError(
            f"{where}: `extra_info.tool_selection` must be a list of tool names, got {value!r}"
        )
    return list(value)


def _without_none(value: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the None entries that Arrow adds when rows of one file have different keys."""
    return {
        key: _without_none(item) if isinstance(item, Mapping) else item
        for key, item in value.items()
        if item is not None
    }
