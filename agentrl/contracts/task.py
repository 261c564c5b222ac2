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
from agentrl.contracts.trajectory import Termination, Trajectory

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
        """Return the `task` reward of a finished trajectory, 1.0 meaning success.

        It is awaited on the event loop: what computes for long belongs into `asyncio.to_thread`.
        """
        return 0.0

    def succeeded(self, trajectory: Trajectory) -> bool:
        """Whether evaluation counts the trajectory as a success.

        It does when the `task` entries reach 1.0, or the weighted total where the task gives
        none (`rewards` without a `task` entry).
        """
        if trajectory.termination is Termination.INFRA_ERROR:
            return False
        scored = any(entry.source == "task" for entry in trajectory.rewards)
        return (trajectory.rewards.of("task") if scored else trajectory.reward) >= 1.0

    def demonstrations(self) -> Sequence[Demonstration]:
        """Return dialogues for SFT, made from the training split only; may be empty."""
        return ()
