"""A prompt and what is needed to score its answer.

`data/sample.py` reads one from a row of a dataset; a task may as well make its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentrl.contracts.media import Media
from agentrl.contracts.message import Message, media_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One prompt; tools and interactions are given copies of what it holds.

    `tools_kwargs` are `{tool: {"create_kwargs": {...}, "execute_kwargs": {...}, ...}}`,
    `interaction_kwargs` are `{"name": ..., ...}`, `tool_selection` names the tools to offer (None:
    all). `agent_name` asks for a kind of episode; there is one as yet. `columns` are all of the
    row's, as they were read; `origin` says which row it was.
    """

    prompt: list[Message]
    index: int = 0
    data_source: str = ""
    ground_truth: Any = None
    agent_name: str | None = None
    tools_kwargs: dict[str, dict[str, Any]] = field(default_factory=dict)
    interaction_kwargs: dict[str, Any] = field(default_factory=dict)
    tool_selection: list[str] | None = None
    extra_info: dict[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)
    origin: str = field(default="", compare=False)

    @property
    def where(self) -> str:
        """How errors name the sample."""
        return self.origin or f"sample {self.index} of {self.data_source!r}"

    @property
    def media(self) -> tuple[Media, ...]:
        """The prompt's images and videos, in order."""
        return tuple(found for message in self.prompt for found in media_of(message["content"]))
