"""The scorers of a run: who gives rewards once a group is complete, at what weight."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveFloat

from agentrl.config.base import Section

TASK = "task"
IN_EPISODE = ("tool", "tool_step", "interaction", "interaction_turn")
"""The first parts of the sources that give rewards while an episode lasts."""


class RewardConfig(Section):
    """One entry of `rewards`."""

    type: str = TASK
    """`task` (the task's own score), or the plugin reference of a function or scorer class."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]+$")
    """Its source in the ledger; the function's or class's name when unset."""
    weight: FiniteFloat = 1.0
    """0 records the reward and trains on none of it."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function, or of the class's constructor."""
    timeout_s: PositiveFloat = 30.0
    """The deadline of one attempt: for one trajectory, or for the group where siblings compare."""
    retries: NonNegativeInt = 2
    """Further attempts after an infrastructure error, with exponential back-off."""

    @property
    def source(self) -> str:
        """Its source in the ledger."""
        return self.name or self.type.rpartition(":")[2].rpartition(".")[2]


def check_sources(rewards: Iterable[RewardConfig], weights: Mapping[str, float]) -> None:
    """Check that every source has one meaning and one weight.

    Raises:
        ValueError: two entries have one name, or a weight's source gives no rewards.
    """
    seen: set[str] = set()
    for source in (entry.source for entry in rewards):
        if source in seen:
            raise ValueError(f"`rewards`: two entries are named {source!r}; give one a `name`")
        if source in (*IN_EPISODE, "penalty"):
            raise ValueError(f"`rewards`: {source!r} is the name of another source; give a `name`")
        seen.add(source)
    for key in weights:
        if key.partition("/")[0] in seen | {TASK}:
            raise ValueError(f"`reward_weights`: {key!r} has its weight in its entry of `rewards`")
        if key.partition("/")[0] not in IN_EPISODE:
            raise ValueError(
                f"`reward_weights`: no source {key!r} gives rewards; expected {IN_EPISODE}, "
                f"or one of them with a tool's or interaction's name, such as 'tool/NAME'"
            )
