"""Groups for the trainer: rolled out ahead of it, as far as staleness allows.

    samples -> running groups -> complete -> not too stale? -> has a signal? -> the step's groups

Strictly on-policy (`max_staleness` 0), nothing runs while the trainer updates. Otherwise the
groups of later steps go on meanwhile; a step takes the first to complete and waits for no other.
What was begun and not yet learnt from is in `Progress.pending`, and a resumed run begins it anew.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from agentrl.config.run import RunConfig
from agentrl.contracts.sample import Sample
from agentrl.contracts.trajectory import Group
from agentrl.data.order import index_at
from agentrl.rollout.group import Rollout
from agentrl.rollout.metrics import staleness
from agentrl.runs.progress import Progress
from agentrl.seed import derive_seed

Refusal = Literal["stale", "refilled", "surplus"]


class GroupFeed:
    """Feeds one run. Close it to cancel what is running.

    Args:
        rollout: rolls groups out.
        samples: whose order the run's seed decides.
        config: the run's.
        progress: where the run stands; `position` and `pending` are kept up to date.
        has_signal: whether there is something to learn from a group.
        record: takes `(group, step=, fate=)` of the complete groups that are refused.
    """

    def __init__(
        self,
        rollout: Rollout,
        samples: Sequence[Sample],
        config: RunConfig,
        progress: Progress,
        *,
        has_signal: Callable[[Group], bool],
        record: Callable[..., Awaitable[None]],
    ) -> None:
        self._rollout = rollout
        self._samples = samples
        self._config = config
        self._size = config.train.prompts_per_step
        self._progress = progress
        self._has_signal = has_signal
        self._record = record
        self._again = sorted(progress.pending)
        self._running: dict[asyncio.Task[Group], int] = {}
        self._counts: dict[Refusal, int] = {"stale": 0, "refilled": 0, "surplus": 0}

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
                    await self._refuse(position, group, version, refused)
        if config.max_staleness == 0:
            await self._cancel_surplus(version)
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

    async def _refuse(self, position: int, group: Group, version: int, fate: Refusal) -> None:
        # First on its way to the disk, then let go of: an interruption loses neither.
        await self._record(group, step=version + 1, fate=fate)
        self._counts[fate] += 1
        self._progress.pending.remove(position)

    async def _cancel_surplus(self, version: int) -> None:
        for task in [task for task in self._running if task.done()]:
            await self._refuse(self._running.pop(task), task.result(), version, "surplus")
        self._counts["surplus"] += len(self._running)
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
        group = self._rollout.run_group(
            self._samples[index_at(position, len(self._samples), seed=config.seed)],
            group_id=f"step{step}-{place}",
            size=config.rollout.group_size,
            seed=derive_seed(derive_seed(config.seed, "train", step), place),
        )
        self._running[asyncio.create_task(group)] = position

    def _refusal(self, group: Group, version: int) -> Refusal | None:
        """Say why a group is of no use to the step; None when it is."""
        rollout = self._config.rollout
        if staleness(group, version) > rollout.max_staleness:
            return "stale"
        if rollout.refill and self._counts["refilled"] < rollout.max_refills:
            return None if self._has_signal(group) else "refilled"
        return None
