import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from tests_support import sample

from agentrl.contracts.reward import RewardEntry, RewardLedger
from agentrl.contracts.sample import Sample
from agentrl.contracts.trajectory import Group, Termination, Trajectory, Turn, TurnKind
from agentrl.errors import ConfigError
from agentrl.rollout.metrics import staleness
from agentrl.runs.progress import Progress
from agentrl.trainer.feed import GroupFeed

SAMPLES = [sample(index=i) for i in range(5)]
Outcome = Callable[[str], Group]
Recorded = tuple[str, int, str]


PROMPT = Turn(kind=TurnKind.PROMPT, messages=(), token_ids=[1])


def policy_turn(versions: Sequence[int], mask: Sequence[int] | None = None) -> Turn:
    return Turn(
        kind=TurnKind.POLICY,
        messages=({"role": "assistant", "content": "x"},),
        token_ids=[1] * len(versions),
        mask=mask or [1] * len(versions),
        logprobs=[-1.0] * len(versions),
        versions=versions,
        parent=0,
        kept=1,
    )


def trajectory(*turns: Turn, reward: float = 0.0, dropped: bool = False) -> Trajectory:
    return Trajectory(
        id="t",
        sample=sample(),
        turns=(PROMPT, *turns),
        rewards=RewardLedger((RewardEntry(source="task", value=reward),)),
        termination=Termination.ANSWERED,
        dropped=dropped,
    )


def of(
    rewards: Sequence[float] = (0.0, 1.0), *, version: int = 0, dropped: bool = False
) -> Outcome:
    """Return what makes a group of these rewards, written by weights of `version`."""

    def make(group_id: str) -> Group:
        turn = policy_turn([version, version])
        rows = tuple(trajectory(turn, reward=r, dropped=dropped) for r in rewards)
        return Group(id=group_id, sample=sample(), trajectories=rows)

    return make


class ManualRollout:
    """Groups that complete when, and as, the test says; records how each was begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.seeds: dict[str, int] = {}
        self.rows: dict[str, int] = {}
        self.sizes: set[int] = set()
        self.live: set[str] = set()
        self._outcomes: dict[str, asyncio.Future[Outcome]] = {}

    async def run_group(self, row: Sample, *, group_id: str, size: int, seed: int) -> Group:
        self.begun.append(group_id)
        self.seeds[group_id] = seed
        self.rows[group_id] = row.index
        self.sizes.add(size)
        self.live.add(group_id)
        self._outcomes[group_id] = asyncio.get_running_loop().create_future()
        try:
            return (await self._outcomes[group_id])(group_id)
        finally:
            await asyncio.sleep(0)  # a clean-up that takes its time
            self.live.discard(group_id)

    async def finish(self, *group_ids: str, outcome: Outcome | Exception | None = None) -> None:
        """Complete these groups at once, and let the feed see it."""
        for group_id in group_ids:
            if isinstance(outcome, Exception):
                self._outcomes[group_id].set_exception(outcome)
            else:
                self._outcomes[group_id].set_result(outcome or of())
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def taking(
    feed: GroupFeed, version: int = 0
) -> AsyncIterator[asyncio.Task[dict[int, Group]]]:
    """Run `take` beside the test until it waits for groups; it must end within the block."""
    task = asyncio.create_task(feed.take(version))
    await settle()
    try:
        yield task
        assert task.done(), "take() still waits for groups"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def ids(task: asyncio.Task[dict[int, Group]]) -> dict[int, str]:
    return {position: group.id for position, group in task.result().items()}


def learn(progress: Progress, task: asyncio.Task[dict[int, Group]]) -> None:
    """Let go of the groups that a step took, as the trainer does after its update."""
    progress.pending = [p for p in progress.pending if p not in task.result()]


@pytest.fixture
def rollout() -> ManualRollout:
    return ManualRollout()


@pytest.fixture
def recorded() -> list[Recorded]:
    """What was recorded: group, step, fate."""
    return []


def rewards_differ(group: Group) -> bool:
    return len({t.reward for t in group.kept}) > 1


@pytest.fixture
def make_feed(
    rollout: ManualRollout, make_config: Any, recorded: list[Recorded]
) -> Callable[..., GroupFeed]:
    """Make a feed of two groups a step; keyword arguments are of the rollout section."""

    def make(progress: Progress, *, on: Any = None, size: int = 2, **settings: Any) -> GroupFeed:
        async def record(group: Group, *, step: int, fate: str) -> None:
            await asyncio.sleep(0)
            recorded.append((group.id, step, fate))

        config = make_config(
            rollout={"group_size": 3, **settings}, train={"steps": 9, "prompts_per_step": size}
        )
        return GroupFeed(
            on or rollout, SAMPLES, config, progress, has_signal=rewards_differ, record=record
        )

    return make


async def test_on_policy_a_step_takes_exactly_its_groups_in_the_order_of_position(
    rollout: ManualRollout, make_feed: Any
) -> None:
    progress = Progress()
    async with aclosing(make_feed(progress, size=3)) as feed:
        async with taking(feed) as step:
            assert rollout.begun == ["step1-0", "step1-1", "step1-2"]
            await rollout.finish("step1-2")
            await rollout.finish("step1-0")
            assert not step.done()
            await rollout.finish("step1-1")
        assert list(ids(step).items()) == [(0, "step1-0"), (1, "step1-1"), (2, "step1-2")]
        assert rollout.live == set()
        assert len(rollout.begun) == 3
        assert (progress.position, progress.pending) == (3, [0, 1, 2])
        learn(progress, step)
        async with taking(feed, version=1) as step:
            await rollout.finish("step2-0", "step2-1", "step2-2", outcome=of(version=1))
        assert ids(step) == {3: "step2-0", 4: "step2-1", 5: "step2-2"}
    assert rollout.sizes == {3}
    assert len(set(rollout.seeds.values())) == 6
    # Five samples: the first epoch has each of them once.
    assert sorted(list(rollout.rows.values())[:5]) == [0, 1, 2, 3, 4]


async def test_with_staleness_the_next_groups_run_on_and_the_first_to_complete_are_taken(
    rollout: ManualRollout, make_feed: Any
) -> None:
    progress = Progress()
    async with aclosing(make_feed(progress, max_staleness=1)) as feed:
        async with taking(feed) as step:
            assert rollout.begun == ["step1-0", "step1-1", "step2-0", "step2-1"]
            await rollout.finish("step2-1")
            await rollout.finish("step1-1")
        assert ids(step) == {1: "step1-1", 3: "step2-1"}
        assert rollout.live == {"step1-0", "step2-0"}
        assert progress.pending == [0, 1, 2, 3]
        learn(progress, step)
        assert progress.pending == [0, 2]
        # One completes during the update; the next step finds it.
        await rollout.finish("step2-0")
        async with taking(feed, version=1) as step:
            assert rollout.begun[4:] == ["step3-0", "step3-1"]
            await rollout.finish("step3-0", outcome=of(version=1))
        assert ids(step) == {2: "step2-0", 4: "step3-0"}
        assert rollout.live == {"step1-0", "step3-1"}


async def test_more_complete_at_once_than_a_step_needs_and_the_rest_is_for_the_next(
    rollout: ManualRollout, make_feed: Any
) -> None:
    async with aclosing(make_feed(Progress(), max_staleness=1)) as feed:
        async with taking(feed) as step:
            await rollout.finish("step2-0", "step1-1", "step1-0")
        assert ids(step) == {0: "step1-0", 1: "step1-1"}
        async with taking(feed, version=1) as step:
            await rollout.finish("step2-1")
        assert ids(step) == {2: "step2-0", 3: "step2-1"}


async def test_groups_older_than_the_bound_are_dropped_counted_and_no_longer_pending(
    rollout: ManualRollout, make_feed: Any, recorded: list[Recorded]
) -> None:
    progress = Progress(step=3)
    async with aclosing(make_feed(progress, max_staleness=1)) as feed:
        async with taking(feed, version=3) as step:
            await rollout.finish("step1-0", outcome=of(version=1))
            assert progress.pending == [1, 2, 3, 4]
            assert recorded == [("step1-0", 4, "stale")]
            assert rollout.begun[4:] == ["step3-0"]
            await rollout.finish("step1-1", outcome=of(version=2))
            await rollout.finish("step2-0", outcome=of(version=3))
        assert ids(step) == {1: "step1-1", 2: "step2-0"}
        assert feed.metrics() == {
            "rollout/groups_stale": 1.0,
            "rollout/groups_refilled": 0.0,
            "rollout/groups_surplus": 0.0,
        }
        async with taking(feed, version=3) as step:
            await rollout.finish("step2-1", "step3-0", outcome=of(version=3))
        assert feed.metrics()["rollout/groups_stale"] == 0


async def test_oversampling_takes_the_first_to_complete_and_cancels_the_surplus(
    rollout: ManualRollout, make_feed: Any
) -> None:
    progress = Progress()
    async with aclosing(make_feed(progress, oversample=2.0)) as feed:
        async with taking(feed) as step:
            assert len(rollout.begun) == 4
            await rollout.finish("step2-0")
            await rollout.finish("step1-1")
        assert ids(step) == {1: "step1-1", 2: "step2-0"}
        assert rollout.live == set()
        assert progress.pending == [1, 2]
        assert feed.metrics()["rollout/groups_surplus"] == 2
        learn(progress, step)
        async with taking(feed, version=1) as step:
            # What was cancelled is not begun again.
            assert rollout.begun[4:] == ["step3-0", "step3-1", "step4-0", "step4-1"]
            await rollout.finish("step3-0", "step3-1", outcome=of(version=1))
        assert progress.pending == [4, 5]


async def test_surplus_groups_that_are_complete_are_recorded(
    rollout: ManualRollout, make_feed: Any, recorded: list[Recorded]
) -> None:
    progress = Progress()
    async with aclosing(make_feed(progress, oversample=2.0)) as feed:
        async with taking(feed) as step:
            await rollout.finish("step1-0", "step1-1", "step2-1")
        assert ids(step) == {0: "step1-0", 1: "step1-1"}
        assert recorded == [("step2-1", 1, "surplus")]
        assert feed.metrics()["rollout/groups_surplus"] == 2
        assert progress.pending == [0, 1]


@pytest.mark.parametrize(("size", "oversample", "begun"), [(10, 1.1, 11), (2, 1.2, 3), (4, 1.0, 4)])
async def test_oversampling_begins_the_share_rounded_up(
    rollout: ManualRollout, make_feed: Any, size: int, oversample: float, begun: int
) -> None:
    feed = make_feed(Progress(), size=size, oversample=oversample)
    async with aclosing(feed), taking(feed):
        assert len(rollout.begun) == begun
        await rollout.finish(*rollout.begun)


async def test_refill_replaces_groups_without_a_signal_up_to_the_limit(
    rollout: ManualRollout, make_feed: Any, recorded: list[Recorded]
) -> None:
    progress = Progress()
    async with aclosing(make_feed(progress, refill=True, max_refills=2)) as feed:
        async with taking(feed) as step:
            await rollout.finish("step1-0", outcome=of((1.0, 1.0)))
            assert rollout.begun[2:] == ["step2-0"]
            await rollout.finish("step1-1", outcome=of((0.0, 1.0), dropped=True))
            assert rollout.begun[3:] == ["step2-1"]
            assert progress.pending == [2, 3]
            # Two are replaced already, so the third counts as it is.
            await rollout.finish("step2-0", outcome=of((1.0, 1.0)))
            await rollout.finish("step2-1")
        assert ids(step) == {2: "step2-0", 3: "step2-1"}
        assert feed.metrics()["rollout/groups_refilled"] == 2
        assert recorded == [("step1-0", 1, "refilled"), ("step1-1", 1, "refilled")]
        # The limit is of one step.
        async with taking(feed) as step:
            await rollout.finish("step3-0", outcome=of((1.0, 1.0)))
            await rollout.finish("step3-1", "step4-0")
        assert ids(step) == {5: "step3-1", 6: "step4-0"}
        assert feed.metrics()["rollout/groups_refilled"] == 1


async def test_without_refill_groups_without_a_signal_are_taken(
    rollout: ManualRollout, make_feed: Any
) -> None:
    async with aclosing(make_feed(Progress())) as feed, taking(feed) as step:
        await rollout.finish("step1-0", outcome=of((1.0, 1.0)))
        await rollout.finish("step1-1", outcome=of(dropped=True))
    assert ids(step) == {0: "step1-0", 1: "step1-1"}
    assert feed.metrics()["rollout/groups_refilled"] == 0


async def test_a_resumed_feed_first_begins_what_was_pending_as_it_was_begun_before(
    rollout: ManualRollout, make_feed: Any
) -> None:
    progress = Progress()
    async with aclosing(make_feed(progress, max_staleness=1)) as feed:
        async with taking(feed) as step:
            await rollout.finish("step1-1", "step2-0")
        learn(progress, step)
    assert progress.pending == [0, 3]

    again = ManualRollout()
    resumed = Progress(step=1, position=progress.position, pending=[3, 0])
    async with aclosing(make_feed(resumed, on=again, max_staleness=1)) as feed:
        async with taking(feed, version=1) as step:
            assert again.begun == ["step1-0", "step2-1", "step3-0", "step3-1"]
            for name in ("step1-0", "step2-1"):
                assert again.seeds[name] == rollout.seeds[name]
                assert again.rows[name] == rollout.rows[name]
            assert sorted(resumed.pending) == [0, 3, 4, 5]
            await again.finish("step1-0", "step3-1", outcome=of(version=1))
        learn(resumed, step)
    assert resumed.pending == [3, 4]


async def test_closing_cancels_what_runs_waits_for_its_clean_up_and_keeps_it_pending(
    rollout: ManualRollout, make_feed: Any
) -> None:
    progress = Progress()
    feed = make_feed(progress, max_staleness=2)
    async with taking(feed):
        await rollout.finish("step1-0", "step1-1")
    assert len(rollout.live) == 4
    await feed.aclose()
    assert rollout.live == set()
    assert progress.pending == [0, 1, 2, 3, 4, 5]
    await feed.aclose()


async def test_an_error_of_a_group_leaves_take_and_the_group_stays_pending(
    rollout: ManualRollout, make_feed: Any
) -> None:
    progress = Progress()
    async with aclosing(make_feed(progress)) as feed:
        async with taking(feed) as step:
            await rollout.finish("step1-1", outcome=ConfigError("the tool has no schema"))
        with pytest.raises(ConfigError, match="the tool has no schema"):
            step.result()
    assert rollout.live == set()
    assert progress.pending == [0, 1]


def test_staleness_is_the_lag_of_the_oldest_trained_token() -> None:
    tool = Turn(
        kind=TurnKind.TOOL,
        messages=({"role": "tool", "content": "3"},),
        token_ids=[1, 2],
        parent=0,
        kept=1,
    )
    mixed = trajectory(policy_turn([5, 6]), tool, policy_turn([4, 7]))
    untrained = trajectory(policy_turn([1, 7], mask=[0, 1]))
    lost = trajectory(policy_turn([0]), dropped=True)

    def of_rows(*rows: Trajectory) -> Group:
        return Group(id="g", sample=sample(), trajectories=rows)

    assert staleness(of_rows(trajectory(policy_turn([7])), mixed), 7) == 3
    assert staleness(of_rows(trajectory(policy_turn([7])), untrained), 7) == 0
    assert staleness(of_rows(trajectory(policy_turn([6])), lost), 7) == 1
    assert staleness(of_rows(lost), 7) == 0
