"""Scoring complete groups: every scorer fills the ledgers, then the failure policy is applied.

A scorer that fails after its retries ends the trajectories it was asked about as an
infrastructure error; siblings keep their rewards. Nothing it raises leaves this module.
"""

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from agentrl.aside import call
from agentrl.config.rewards import TASK, RewardConfig
from agentrl.config.rollout import FailurePolicy
from agentrl.config.run import RunConfig
from agentrl.contracts.failure import Failure
from agentrl.contracts.reward import RewardEntry, RewardLedger, finite, weigh
from agentrl.contracts.scorer import Scorer
from agentrl.contracts.task import BaseTask
from agentrl.contracts.tool import Services
from agentrl.contracts.trajectory import Group, Termination, Trajectory
from agentrl.errors import RolloutError, boundary
from agentrl.places import Places
from agentrl.plugins.reference import load_plugin
from agentrl.plugins.registry import construct, plugin_class
from agentrl.retry import LONGEST_PAUSE_S, retried
from agentrl.rewards.functions import RewardFunction
from agentrl.rewards.settle import settle
from agentrl.waits import within

_AT_ONCE = 64
"""Calls of one scorer that run at once; its deadline does not run while a call waits its turn."""

Outcome = tuple[RewardEntry, ...] | Failure


class Scoring:
    """All scorers of a run with their terms; `weights` are of in-episode sources, by prefix."""

    def __init__(
        self,
        scorers: Sequence[tuple[RewardConfig, Scorer]],
        *,
        weights: Mapping[str, float],
        failures: FailurePolicy,
    ) -> None:
        self._scorers = [(*pair, _places(pair[0])) for pair in scorers]
        self._weights = dict(weights)
        self._failures = failures

    async def score(self, group: Group) -> Group:
        """Return the group with full ledgers, settled.

        Trajectories that an infrastructure error ended are not scored.
        """
        alive = [t for t in group.trajectories if t.termination is not Termination.INFRA_ERROR]
        asked = replace(group, trajectories=tuple(alive))
        columns = await asyncio.gather(*(_ask(*terms, asked) for terms in self._scorers))
        given = {t.id: [column[i] for column in columns] for i, t in enumerate(alive)}
        scored = (self._scored(t, given.get(t.id, [])) for t in group.trajectories)
        return replace(group, trajectories=tuple(scored))

    def _scored(self, trajectory: Trajectory, outcomes: Sequence[Outcome]) -> Trajectory:
        entries = [*weigh(trajectory.rewards, self._weights)]
        failures: list[Failure] = []
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                entries += outcome
        trajectory = replace(trajectory, rewards=RewardLedger(tuple(entries)))
        if failures:
            trajectory = replace(
                trajectory, termination=Termination.INFRA_ERROR, failure=failures[0]
            )
        return settle(trajectory, self._failures)


def load_scorers(
    config: RunConfig, task: BaseTask, services: Services, *, base: Path | None
) -> Scoring:
    """Build every entry of `rewards`.

    Raises:
        ConfigError: a reference, signature or configuration is wrong.
    """
    return Scoring(
        [(entry, _scorer(entry, task, services, base)) for entry in config.rewards],
        weights=config.reward_weights,
        failures=config.rollout.failures,
    )


def _scorer(entry: RewardConfig, task: BaseTask, services: Services, base: Path | None) -> Scorer:
    if entry.type == TASK:
        return RewardFunction(task.score, entry.source, entry.config, services)
    found = load_plugin(entry.type, base=base)
    if not isinstance(found, type):
        return RewardFunction(found, entry.source, entry.config, services)
    where = f"reward {entry.source!r}"
    scorer_class: type[Scorer] = plugin_class(entry.type, ("score",), where, base)
    lent = {"services": services} if "services" in inspect.signature(found).parameters else {}
    return construct(scorer_class, where, **entry.config, **lent)


async def _ask(terms: RewardConfig, scorer: Scorer, places: Places, group: Group) -> list[Outcome]:
    """Return one outcome for each trajectory."""
    alone = isinstance(scorer, RewardFunction) and scorer.alone
    parts = [(t,) for t in group.trajectories] if alone else [group.trajectories]

    async def ask(part: tuple[Trajectory, ...]) -> Sequence[Outcome]:
        try:
            async with places.place(f"group {group.id}"):
                attempt = partial(_attempt, terms, scorer, replace(group, trajectories=part))
                return (await retried(attempt, retries=terms.retries))[0]
        except RolloutError as error:
            return [Failure.of(error)] * len(part)

    asked = await asyncio.gather(*(ask(part) for part in parts if part))
    return [outcome for outcomes in asked for outcome in outcomes]


def _places(terms: RewardConfig) -> Places:
    remedy = "the calls before it are slow: lower the entry's `timeout_s`, or look at what it calls"
    held_s = (1 + terms.retries) * (terms.timeout_s + LONGEST_PAUSE_S)
    return Places(_AT_ONCE, f"queue: scorer {terms.source!r}", remedy=remedy, held_s=2 * held_s)


async def _attempt(terms: RewardConfig, scorer: Scorer, group: Group) -> list[Outcome]:
    """Ask one scorer once.

    Raises:
        RolloutError: it cannot say.
    """
    with boundary(f"reward {terms.source!r}"):
        asked = within(
            call(scorer.score, group),
            f"scorer {terms.source!r}",
            f"group {group.id}",
            remedy="look at what it calls; it is given up at its `timeout_s`",
            deadline_s=terms.timeout_s,
        )
        given = list(await asked)
        if (expected := len(group.trajectories)) != len(given):
            raise ValueError(f"expected {expected} results, one a trajectory, got {given!r}")
        return [tuple(_entry(terms, e) for e in row) for row in given]


def _entry(terms: RewardConfig, entry: RewardEntry) -> RewardEntry:
    """Check what a scorer gave, and set its full source and weight."""
    name, source = terms.source, entry.source
    return replace(
        entry,
        source=source if source.partition("/")[0] == name else f"{name}/{source}",
        value=finite(entry.value),
        weight=finite(entry.weight * terms.weight),
    )
