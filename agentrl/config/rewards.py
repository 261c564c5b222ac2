"""The scorers of a run: who gives rewards once a group is complete, at what weight."""

from collections.abc import Iterable
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
    """Keyword arguments of the function, or of the class's constructor; where either names a
    parameter `services`, it is lent the sandbox."""
    timeout_s: PositiveFloat = 30.0
    """The deadline of one attempt: for one trajectory, or for the group where siblings compare."""
    retries: NonNegativeInt = 2
    """Further attempts after an infrastructure error, with exponential back-off."""

    @property
    def source(self) -> str:
        """Its source in the ledger."""
        return self.name or self.type.rpartition(":")[2].rpartition(".")[2]


def check_names(rewards: list[RewardConfig]) -> list[RewardConfig]:
    """Check that every entry has a source of its own.

    Raises:
        ValueError: two have one name, or one has that of rewards within an episode.
    """
    seen = {*IN_EPISODE, "penalty"}
    for entry in rewards:
        if entry.source in seen:
            raise ValueError(f"the source {entry.source!r} is taken; give this entry a `name`")
        seen.add(entry.source)
    return rewards


def check_weights(weights: dict[str, float], rewards: Iterable[RewardConfig]) -> dict[str, float]:
    """Check that the weights are of sources that give rewards within an episode.

    Raises:
        ValueError: one has its weight elsewhere, or does not exist.
    """
    for key in weights:
        if key in {TASK, *(entry.source for entry in rewards)}:
            raise ValueError(f"{key!r} has its weight in its entry of `rewards`")
        if key.partition("/")[0] not in IN_EPISODE:
            raise ValueError(
                f"no source {key!r} gives rewards within an episode; expected one of "
                f"{', '.join(IN_EPISODE)}, or a single tool as 'tool/NAME'"
            )
    return weights
