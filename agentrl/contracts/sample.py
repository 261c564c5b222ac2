"""One row of a dataset, with verl's column names; TRL's `prompt` + `answer` are taken too.

`prompt` is a list of messages (a plain string becomes one user message). `extra_info` may carry
`tools_kwargs` (`{tool: {"create_kwargs": {...}, "execute_kwargs": {...}}}`),
`interaction_kwargs` (`{"name": ..., ...}`) and `tool_selection` (names of the tools to offer).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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

    @classmethod
    def from_row(cls, row: Mapping[str, Any], *, index: int, source: str = "data") -> "Sample":
        """Read a verl or TRL row. `source` and `index` name the row in errors.

        Raises:
            ConfigError: the row has no prompt, or a column has the wrong form.
        """
        where = f"{source}, row {index + 1}"
        extra = dict(row.get("extra_info") or {})
        reward_model = row.get("reward_model") or {}
        if not isinstance(reward_model, Mapping):
            raise ConfigError(
                f"{where}: `reward_model` must be a mapping such as "
                f'{{"ground_truth": "72"}}, got {type(reward_model).__name__}'
            )
        return cls(
            prompt=_messages(row.get("prompt"), row, where),
            index=int(extra.get("index", index)),
            data_source=str(row.get("data_source") or source),
            ground_truth=reward_model.get("ground_truth", row.get("answer")),
            images=row.get("images"),
            agent_name=row.get("agent_name"),
            tools_kwargs=_without_none(extra.pop("tools_kwargs", None)),
            interaction_kwargs=_without_none(extra.pop("interaction_kwargs", None)),
            tool_selection=extra.pop("tool_selection", None),
            extra_info=extra,
        )


def _messages(prompt: Any, row: Mapping[str, Any], where: str) -> list[Message]:
    if isinstance(prompt, str) and prompt.strip():
        return [{"role": "user", "content": prompt}]
    if prompt is None or isinstance(prompt, str) or len(prompt) == 0:
        raise ConfigError(
            f"{where}: no `prompt`; expected a list of messages "
            f'[{{"role": "user", "content": "..."}}] or a string, '
            f"got columns {sorted(row)}. Rename or map the column that holds the question."
        )
    messages = [dict(message) for message in prompt]
    for message in messages:
        if "role" not in message or "content" not in message:
            raise ConfigError(
                f"{where}: each message of `prompt` needs `role` and `content`, got {message!r}"
            )
    return messages


def _without_none(value: Any) -> dict[str, Any]:
    """Drop the None entries that Arrow adds when rows of one file have different keys."""
    if not isinstance(value, Mapping):
        return {}
    return {
        key: _without_none(item) if isinstance(item, Mapping) else item
        for key, item in value.items()
        if item is not None
    }
