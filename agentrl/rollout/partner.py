"""The interaction of one episode: the user's side of its dialogue."""

import copy
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

from agentrl.contracts.interaction import BaseInteraction
from agentrl.contracts.message import Message
from agentrl.contracts.reward import RewardEntry, finite
from agentrl.errors import boundary
from agentrl.rollout.truncate import showable
from agentrl.shield import quietly, shielded
from agentrl.waits import within

T = TypeVar("T")

_REMEDY = "look at what the interaction waits for, or lower rollout.tool_timeout_s"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the user's side says to a policy turn; `end` closes the dialogue."""

    end: bool
    content: str
    reward: float


@dataclass(kw_only=True, slots=True)
class Partner:
    """One instance of an interaction, from start to finalize."""

    interaction: BaseInteraction
    kwargs: dict[str, Any]
    episode_id: str
    timeout_s: float
    _instance: str | None = None
    _started: bool = False

    async def start(self) -> None:
        """Begin.

        Raises:
            RolloutError: the interaction cannot begin; it is still to be finalized.
        """
        self._instance = self.episode_id
        with boundary(f"{self._what} start"):
            started = self.interaction.start_interaction(
                self.episode_id, **copy.deepcopy(self.kwargs)
            )
            self._instance = await self._within(started, "start")
        self._started = True

    async def answer(self, messages: list[Message]) -> Answer:
        """Answer the last policy turn.

        Raises:
            RolloutError: the interaction failed.
        """
        assert self._instance is not None
        with boundary(f"{self._what} generate_response"):
            answer = self.interaction.generate_response(
                self._instance, copy.deepcopy(messages), **copy.deepcopy(self.kwargs)
            )
            end, content, reward, _ = await self._within(answer, "generate_response")
            return Answer(end=bool(end), content=showable(str(content)), reward=finite(reward))

    async def rewards(self) -> list[RewardEntry]:
        """Ask for the reward of the whole trajectory; there is none if it never started.

        Raises:
            RolloutError: the interaction failed.
        """
        if not self._started or self._instance is None:
            return []
        with boundary(f"{self._what} calculate_score"):
            asked = self.interaction.calculate_score(self._instance, **copy.deepcopy(self.kwargs))
            score = await self._within(asked, "calculate_score")
            return [RewardEntry(source="interaction", value=finite(score))]

    async def finalize(self) -> None:
        """Finalize if it was begun, whatever happened and whoever cancels."""
        if self._instance is None:
            return
        instance, self._instance = self._instance, None
        await shielded(
            quietly(
                lambda: self.interaction.finalize_interaction(instance),
                f"{self._what}: finalize",
                f"episode {self.episode_id}",
                self.timeout_s,
            )
        )

    async def _within(self, work: Awaitable[T], method: str) -> T:
        return await within(
            work,
            f"{self._what}: {method}",
            f"episode {self.episode_id}",
            remedy=_REMEDY,
            deadline_s=self.timeout_s,
        )

    @property
    def _what(self) -> str:
        return f"interaction {self.interaction.name!r}"
