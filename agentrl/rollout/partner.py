"""The interaction of one episode: the user's side of its dialogue."""

import asyncio
import copy
from dataclasses import dataclass
from typing import Any

from agentrl.contracts.interaction import BaseInteraction
from agentrl.contracts.message import Message
from agentrl.contracts.reward import RewardEntry, finite
from agentrl.errors import boundary
from agentrl.rollout.truncate import showable
from agentrl.shield import quietly, shielded


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
            async with asyncio.timeout(self.timeout_s):
                self._instance = await self.interaction.start_interaction(
                    self.episode_id, **copy.deepcopy(self.kwargs)
                )
        self._started = True

    async def answer(self, messages: list[Message]) -> Answer:
        """Answer the last policy turn.

        Raises:
            RolloutError: the interaction failed.
        """
        assert self._instance is not None
        with boundary(f"{self._what} generate_response"):
            async with asyncio.timeout(self.timeout_s):
                answer = await self.interaction.generate_response(
                    self._instance, copy.deepcopy(messages), **copy.deepcopy(self.kwargs)
                )
            end, content, reward, _ = answer
            return Answer(end=bool(end), content=showable(str(content)), reward=finite(reward))

    async def rewards(self) -> list[RewardEntry]:
        """Ask for the reward of the whole trajectory; there is none if it never started.

        Raises:
            RolloutError: the interaction failed.
        """
        if not self._started or self._instance is None:
            return []
        with boundary(f"{self._what} calculate_score"):
            async with asyncio.timeout(self.timeout_s):
                score = await self.interaction.calculate_score(
                    self._instance, **copy.deepcopy(self.kwargs)
                )
            return [RewardEntry(source="interaction", value=finite(score))]

    async def finalize(self) -> None:
        """Finalize if it was begun, whatever happened and whoever cancels."""
        if self._instance is None:
            return
        instance, self._instance = self._instance, None
        await shielded(
            quietly(
                lambda: self.interaction.finalize_interaction(instance),
                f"{self._what} finalize",
                self.timeout_s,
            )
        )

    @property
    def _what(self) -> str:
        return f"interaction {self.interaction.name!r}"
