"""Groups for the trainer: rolled out ahead of it, as far as staleness allows.

    samples -> running groups -> complete -> not too stale? -> has a signal? -> the step's groups

Strictly on-policy (`max_staleness` 0), nothing runs while the trainer updates. Otherwise the
groups of later steps go on meanwhile; a step takes the first to complete and waits for no other.
What was begun and not yet learnt from is in `Progress.pending`, and a resumed run begins it anew.
"""

import asyncio
import math
from collections.abc import Sequence

from agentrl.algorithms.advantage import has_signal
from agentrl.config.run import RunConfig
from agentrl.contracts.sample import Sample
from agentrl.contracts.trajectory import Group
from agentrl.data.order import take
from agentrl.rollout.group import Rollout
from agentrl.runs.checkpoint import Progress
from agentrl.seed import derive_seed


class GroupFeed:
    """Feeds one run. Close it to cancel what is running."""

    def __init__(
        self, rollout: Rollout, samples: Sequence[Sample], config: RunConfig, progress: Progress
    ) -> None:
        self._rollout = rollout
        self._samples = samples
        self._config = config
        self._size = config.train.prompts_per_step
        self._progress = progress
        self._again = sorted(progress.pending)
        self._running: dict[asyncio.Task[Group], int] = {}
        self._counts = {"stale": 0, "refilled": 0, "surplus": 0}

    async def take(self, version: int) -> dict[int, Group]:
        """Return a step's groups by position, for weights of `version`.

        They stay pending until `Progress.pending` lets go of them: the caller's business, once it
        has learnt from them.
        """
        config, taken = self._config.rollout, dict[int, Group]()
        self._counts = dict.fromkeys(self._counts, 0)
        # Rounded first: 100 * 1.1 is a little more than 110.
        begun = math.ceil(round(self._size * config.oversample, 6))
        ahead = begun + self._size * config.max_staleness
        while len(taken) < self._size:
            while len(self._running) + len(taken) < ahead:
                self._begin()
            # In the order of their positions: what completes together is taken in that order.
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in self._running if task.done()]:
                if len(taken) == self._size:
                    break
                position, group = self._running.pop(task), task.result()
                refused = self._refusal(group, version)
                if refused is None:
                    taken[position] = group
                else:
                    self._counts[refused] += 1
                    self._progress.pending.remove(position)
        if config.max_staleness == 0:
            await self._cancel_surplus()
        return dict(sorted(taken.items()))

    def metrics(self) -> dict[str, float]:
        """Return what became of the groups that the last step began and did not take."""
        return {f"rollout/groups_{name}": float(count) for name, count in self._counts.items()}

    async def aclose(self) -> None:
        """Cancel what is running and wait for its clean-up."""
        running, self._running = self._running, {}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _cancel_surplus(self) -> None:
        self._counts["surplus"] = len(self._running)
        for position in self._running.values():
            self._progress.pending.remove(position)
        await self.aclose()

    def _begin(self) -> None:
        """Start the next group: one that an interruption left, or a new one."""
        progress = self._progress
        if self._again:
            position = self._again.pop(0)
        else:
            position = progress.position
            progress.position += 1
            progress.pending.append(position)
        config = self._config
        step, place = position // self._size + 1, position % self._size
        chosen = take(len(self._samples), start=position, size=1, seed=config.seed)
        group = self._rollout.run_group(
            self._samples[next(iter(chosen))],
            group_id=f"step{step}-{place}",
            size=config.rollout.group_size,
            seed=derive_seed(derive_seed(config.seed, "train", step), place),
        )
        self._running[asyncio.create_task(group)] = position

    def _refusal(self, group: Group, version: int) -> str | None:
        """Say why a group is of no use to the step; None when it is."""
        rollout = self._config.rollout
        if staleness(group, version) > rollout.max_staleness:
            return "stale"
        if rollout.refill and self._counts["refilled"] < rollout.max_refills:
            rewards = [t.reward for t in group.kept]
            return None if rewards and has_signal(rewards) else "refilled"
        return None


def staleness(group: Group, version: int) -> int:
    """Return how many versions the group's oldest trained token lags behind `version`."""
    turns = [turn for trajectory in group.kept for turn in trajectory.policy_turns]
    versions = [
        v for turn in turns for v, bit in zip(turn.policy_versions, turn.mask, strict=True) if bit
    ]
    return version - min(versions, default=version)
