"""The task plugin: where samples come from, how an answer is scored, what demonstrations exist.

A task reads `task.train` and `task.test` of the configuration (a file or a hub dataset) or
generates its samples. It never knows about models or tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentrl.contracts.message import Message
from agentrl.contracts.sample import Sample
from agentrl.contracts.tool import Services
from agentrl.contracts.trajectory import Trajectory

Split = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Demonstration:
    """A dialogue to imitate; the loss of SFT is on its assistant messages only.

    Tool calls stand in the assistant messages as `tool_calls`; `tools` names the tools whose
    schemas the prompt shows.
    """

    messages: list[Message]
    tools: tuple[str, ...] = ()


class BaseTask(ABC):
    """Base of every task. `train` and `test` are what the configuration names, if anything."""

    def __init__(
        self, config: dict[str, Any], *, train: str | None, test: str | None, seed: int
    ) -> None:
        self.config = config
        self.train = train
        self.test = test
        self.seed = seed

    @abstractmethod
    def samples(self, split: Split) -> Sequence[Sample]:
        """Return the samples of a split; the same ones for the same seed.

        Raises:
            ConfigError: the data cannot be read.
        """

    async def score(self, trajectory: Trajectory, services: Services) -> float:
        """Return the `task` reward of a finished trajectory, 1.0 meaning success."""
        return 0.0

    def succeeded(self, trajectory: Trajectory) -> bool:
        """Whether evaluation counts the trajectory as a success."""
        return trajectory.rewards.of("task") >= 1.0

    def demonstrations(self) -> Sequence[Demonstration]:
        """Return dialogues for SFT, made from the training split only; may be empty."""
        return ()
