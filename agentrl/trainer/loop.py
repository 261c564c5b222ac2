"""The nodes of the loop of reinforcement.

A step is finished before the weights are synced, so that the checkpoint of a run whose engine
fails then holds the step.
"""

import time
from collections import Counter
from collections.abc import Callable
from functools import partial

from agentrl.algorithms.samples import TrainSample
from agentrl.contracts.sample import Sample
from agentrl.contracts.trajectory import Group
from agentrl.data.order import index_at
from agentrl.errors import RunError
from agentrl.flow.node import Refuse, Step
from agentrl.flow.run import Passed
from agentrl.flow.tickets import Ticket
from agentrl.learner.learner import Learner
from agentrl.rollout.metrics import age_metrics, rollout_metrics, signal_metrics, timing_metrics
from agentrl.seed import derive_seed
from agentrl.traces.record import Fate
from agentrl.trainer.session import Session
from agentrl.watch.shares import Shares


class Recorded(dict[str, float]):
    """What a step's groups amount to; they are on their way to the disk."""


class Learnt(dict[str, float]):
    """What the update measured."""


class Metrics(dict[str, float]):
    """All metrics of a finished step."""


class Loop:
    """The nodes of one run."""

    def __init__(self, session: Session, learner: Learner) -> None:
        self._session, self._learner = session, learner
        self._shares, self._fates = Shares(), Counter[str]()
        self.drain: Callable[[], dict[str, float]] = dict  # what the flow measured
        self._rolled_out = self.began = time.monotonic()

    async def told(self, passed: Passed) -> None:
        """Record a group that no step learns from, and count what became of every one."""
        self._shares.note(passed.seconds, trained=passed.refused is None)
        if passed.refused is None:
            return
        names: dict[str, Fate] = {"has_signal": "refilled", "stale": "stale", "surplus": "surplus"}
        fate = names.get(passed.refused if passed.by == "batch" else passed.by, "refused")
        self._fates[fate] += 1
        if (group := passed.find(Group)) is not None:
            step = self._session.run.progress.step + 1
            await self._session.recorder.record(group, step=step, fate=fate)

    def sample(self, ticket: Ticket) -> Sample:
        """Return the prompt of a ticket, in the order that the run's seed decides."""
        samples, seed = self._session.samples, self._session.config.seed
        return samples[index_at(ticket.position, len(samples), seed=seed)]

    async def rollout(self, ticket: Ticket, sample: Sample) -> Group:
        """Roll a group out; its seeds depend on its place alone."""
        config = self._session.config
        step, place = divmod(ticket.position, config.train.prompts_per_step)
        seed = derive_seed(derive_seed(config.seed, "train", step + 1), place)
        again = f"-again{ticket.attempt}" if ticket.attempt else ""
        return await self._session.host.rollout.play_group(
            sample,
            group_id=f"step{step + 1}-{place}{again}",
            size=config.rollout.group_size,
            seed=derive_seed(seed, "again", ticket.attempt) if again else seed,
        )

    async def score(self, group: Group) -> Group:
        """Let the scorers fill the ledgers."""
        return await self._session.host.rollout.score_group(group)

    def has_signal(self, group: Group) -> Refuse | None:
        """Refuse what there is nothing to learn from, up to `rollout.max_refills` a step."""
        rollout = self._session.config.rollout
        if not rollout.refill or self._fates["refilled"] >= rollout.max_refills:
            return None
        learns = self._session.policy.algorithm.has_signal
        return None if learns(group) else Refuse("no signal")

    async def record(self, groups: list[Group], step: Step) -> Recorded:
        """Send a step's groups to the disk before it learns from them, and look at them.

        Raises:
            RunError: the engine failed, or step after step has nothing to learn from.
        """
        session = self._session
        await session.recorder.begin(groups, step=step, fate="trained")
        if session.engine.failure is not None:
            await session.run.stop(session.engine.failure)
        _check_not_empty(session, groups)
        self._rolled_out = time.monotonic()
        return await session.run.needs(self._describe(groups))

    async def credit(self, groups: list[Group], step: Step) -> list[TrainSample]:
        """Let the algorithm say what each sampled token is worth."""
        return await self._session.run.compute.run(partial(self._learner.credit, step, groups))

    async def update(self, samples: list[TrainSample], step: Step) -> Learnt:
        """Improve the policy.

        Raises:
            RunError: a loss is not finite.
        """
        session = self._session
        async with session.sync.updating(step):
            update = partial(self._learner.update, step, samples)
            return Learnt(await session.run.compute.run(update))

    def finish(
        self,
        tickets: list[Ticket],
        groups: list[Group],
        recorded: Recorded,
        learnt: Learnt,
        step: Step,
    ) -> Metrics:
        """Make a step count: from here on a checkpoint holds it."""
        session, progress = self._session, self._session.run.progress
        times = timing_metrics(groups, self.began, self._rolled_out, time.monotonic())
        metrics = Metrics(recorded | learnt | times)
        progress.step = int(step)
        taken = {ticket.position for ticket in tickets}
        progress.pending[:] = [p for p in progress.pending if p not in taken]
        session.tally.count(groups, executions=session.host.services.executions)
        metrics |= {"sandbox/executions": float(session.tally.executions)} | session.watch.metrics()
        metrics |= session.engine.drain_metrics() | session.sync.parity | self.drain()
        session.run.folder.record_metrics(step, "train", metrics)
        session.run.reporter.step_finished(step, metrics)
        session.recorder.end()
        return metrics

    async def sync(self, metrics: Metrics) -> None:
        """Bring the engine the new weights."""
        await self._session.sync.publish()

    async def _describe(self, groups: list[Group]) -> Recorded:
        session, fates, self._fates = self._session, self._fates, Counter()
        names = ("stale", "refilled", "refused", "surplus")
        return Recorded(
            rollout_metrics(groups, session.host.plugins.succeeded)
            | signal_metrics(groups, session.policy.algorithm.has_signal)
            | age_metrics(groups, session.run.progress.step)
            | {f"rollout/groups_{name}": float(fates[name]) for name in names}
            | self._shares.metrics()
        )


def _check_not_empty(session: Session, groups: list[Group]) -> None:
    """Stop when step after step has nothing to learn from.

    Raises:
        RunError: `train.max_empty_steps` in a row had every trajectory dropped.
    """
    progress = session.run.progress
    progress.empty_steps = 0 if any(g.kept for g in groups) else progress.empty_steps + 1
    if progress.empty_steps >= session.config.train.max_empty_steps:
        errors = [t.error for group in groups for t in group.trajectories if t.error]
        raise RunError(
            f"all trajectories of {progress.empty_steps} steps in a row were dropped; "
            f"the last error was: {errors[-1] if errors else 'none'}"
        )
