"""One row of a dataset, with verl's column names; TRL's `prompt` + `answer` are taken too.

`prompt` is a list of messages (a plain string becomes one user message). `extra_info` may carry
`tools_kwargs` (`{tool: {"create_kwargs": {...}, "execute_kwargs": {...}}}`),
`interaction_kwargs` (`{"name": ..., ...}`) and `tool_selection` (names of the tools to offer).
"""

from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, cast

from agentrl.contracts.message import Message
from agentrl.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A prompt and what is needed to score its answer."""

    prompt: list[Message]
    index: int = 0
    data_source: str = ""
    ground_truth: Any = None
    images: list[Any] | None = None
    agent_name: str | None = None
    tools_kwargs: dict[str, dict[str, Any]] = field(default_factory=dict)
    interaction_kwargs: dict[str, Any] = field(default_factory=dict)
    tool_selection: list[str] | None = None
    extra_info: dict[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Every column of the row, as it was read: what reward functions are given."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any], *, index: int, source: str = "data") -> "Sample":
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
        return cls(
            prompt=_messages(row.get("prompt"), row, where),
            index=int(own_index) if isinstance(own_index, Integral) else index,
            data_source=str(row.get("data_source") or source),
            ground_truth=reward_model.get("ground_truth", row.get("answer")),
            images=row.get("images"),
            agent_name=row.get("agent_name"),
            tools_kwargs=_without_none(tools_kwargs),
            interaction_kwargs=_without_none(
                _mapping(interaction_kwargs, where, "extra_info.interaction_kwargs")
            ),
            tool_selection=_names(extra.pop("tool_selection", None), where),
            extra_info=extra,
            columns=dict(row),
        )


def _messages(prompt: Any, row: Mapping[str, Any], where: str) -> list[Message]:
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
    return [cast(Message, {"content": None} | _without_none(message)) for message in messages]


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
