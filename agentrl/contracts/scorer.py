"""Scorers: rewards that are given once a group is complete."""

from collections.abc import Sequence
from typing import Protocol

from agentrl.contracts.reward import RewardEntry
from agentrl.contracts.trajectory import Group


class Scorer(Protocol):
    """Scores the trajectories of a complete group: each by itself, or siblings compared."""

    async def score(self, group: Group) -> Sequence[Sequence[RewardEntry]]:
        """Return the entries of every trajectory, in the group's order; none where it has no say.

        Their sources stand in the ledger under the scorer's own name. The group holds those
        trajectories alone that no infrastructure error ended.

        Raises:
            RolloutError: it cannot say; what becomes of the group is the failure policy's.
        """
