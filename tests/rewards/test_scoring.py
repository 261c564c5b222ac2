import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from rewards_support import NoSandbox, ScoringTask, a_group, a_sample, a_trajectory

from agentrl.config.rewards import RewardConfig
from agentrl.config.rollout import FailurePolicy
from agentrl.contracts.reward import RewardEntry
from agentrl.contracts.trajectory import Group, Termination
from agentrl.errors import ConfigError, InfraError, ToolError
from agentrl.rewards.functions import RewardFunction
from agentrl.rewards.scoring import Scoring, load_scorers


def scoring(*functions: Any, weights: Any = None, **terms: Any) -> Scoring:
    """Score with functions of our signature, each under its own name."""
    terms = {"retries": 0, **terms}
    return Scoring(
        [
            (
                RewardConfig(name=f.__name__, **terms),
                RewardFunction(f, f.__name__, {}, NoSandbox()),
            )
            for f in functions
        ],
        weights=weights or {},
        failures=FailurePolicy(),
    )


def right(trajectory: Any, sample: Any) -> float:
    return float(trajectory.answer == sample.ground_truth)


def brief(trajectory: Any, sample: Any) -> float:
    return -float(len(trajectory.answer))


def shaky(trajectory: Any, sample: Any) -> float:
    return float(int(trajectory.answer))


async def test_every_scorer_enters_its_reward_at_its_weight() -> None:
    group = await scoring(right, brief, weight=0.5).score(a_group("5", "fifty"))
    assert [t.rewards.sources() for t in group.trajectories] == [
        {"right": 1.0, "brief": -1.0},
        {"right": 0.0, "brief": -5.0},
    ]
    assert [t.reward for t in group.trajectories] == [0.0, -2.5]


async def test_in_episode_rewards_get_the_weight_of_the_longest_prefix() -> None:
    entries = [
        RewardEntry(source="tool/add", value=1.0),
        RewardEntry(source="tool/mul", value=1.0),
        RewardEntry(source="tool_step/add", value=1.0, turn=2),
    ]
    scored = await scoring(weights={"tool": 0.5, "tool/add": 0.25}).score(
        a_group("5", entries=entries)
    )
    assert [e.weight for e in scored.trajectories[0].rewards] == [0.25, 0.5, 1.0]
    assert scored.trajectories[0].rewards.entries[2].turn == 2


async def test_a_scorer_that_fails_spoils_the_one_trajectory_it_was_asked_about() -> None:
    group = await scoring(right, shaky).score(a_group("5", "five"))
    good, bad = group.trajectories
    assert (good.reward, good.dropped, good.failure) == (6.0, False, None)
    assert bad.termination is Termination.INFRA_ERROR
    assert bad.dropped
    assert bad.rewards.sources() == {"right": 0.0}
    assert bad.failure is not None
    assert (bad.failure.kind, bad.failure.type) == ("PluginError", "ValueError")
    assert bad.failure.message.startswith("reward 'shaky': ValueError: invalid literal")
    assert "float(int(trajectory.answer))" in bad.failure.traceback


async def test_a_group_scorer_that_fails_spoils_the_group() -> None:
    def rank(trajectories: Any, sample: Any) -> list[float]:
        return [1.0]

    group = await scoring(rank).score(a_group("5", "6"))
    assert [t.dropped for t in group.trajectories] == [True, True]
    assert "expected 2 results, one a trajectory" in str(group.trajectories[0].error)


async def test_what_an_infrastructure_error_ended_is_not_scored() -> None:
    sizes: list[int] = []

    def count(trajectories: Any, sample: Any) -> list[float]:
        sizes.append(len(trajectories))
        return [1.0] * len(trajectories)

    broken = a_trajectory(id="b", termination=Termination.INFRA_ERROR)
    alive = a_trajectory(id="a")
    group = Group(id="g", sample=a_sample(), trajectories=(broken, alive))
    scored = await scoring(count).score(group)
    assert sizes == [1]
    assert [t.rewards.sources() for t in scored.trajectories] == [{}, {"count": 1.0}]
    assert [t.dropped for t in scored.trajectories] == [True, False]


async def test_a_group_without_a_living_member_asks_nobody() -> None:
    scored = await scoring(right).score(a_group("5", termination=Termination.INFRA_ERROR))
    assert scored.trajectories[0].rewards.entries == ()


async def test_none_is_no_entry() -> None:
    def silent(trajectory: Any, sample: Any) -> None:
        return None

    group = await scoring(silent).score(a_group("5"))
    assert group.trajectories[0].rewards.entries == ()
    assert not group.trajectories[0].dropped


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (float("nan"), "ValueError: expected a finite reward, got nan"),
        (float("-inf"), "got -inf"),
        ("1.0", "TypeError: expected a number as the reward, got '1.0'"),
        ([1.0], "TypeError"),
        ({"reward": 1.0}, "expected a number or a mapping with 'score'"),
        ({"score": 1.0, "acc": float("nan")}, "got nan"),
        (StopIteration("spent"), "StopIteration"),
        (asyncio.CancelledError(), "CancelledError"),
        (ToolError("as it is"), "as it is"),
    ],
)
async def test_what_is_no_number_is_a_failure(value: Any, says: str) -> None:
    def odd(trajectory: Any, sample: Any) -> Any:
        if isinstance(value, BaseException):
            raise value
        return value

    group = await scoring(odd).score(a_group("5"))
    assert says in str(group.trajectories[0].error)
    assert group.trajectories[0].dropped


async def test_infrastructure_errors_alone_are_retried() -> None:
    attempts = {"flaky": 0, "wrong": 0}

    async def flaky(trajectory: Any, sample: Any) -> float:
        attempts["flaky"] += 1
        if attempts["flaky"] < 3:
            raise ConnectionRefusedError("down")
        return 1.0

    async def wrong(trajectory: Any, sample: Any) -> float:
        attempts["wrong"] += 1
        raise KeyError("x")

    group = await scoring(flaky, wrong, retries=2).score(a_group("5"))
    assert attempts == {"flaky": 3, "wrong": 1}
    assert group.trajectories[0].rewards.sources() == {"flaky": 1.0}


async def test_retries_come_to_an_end() -> None:
    async def down(trajectory: Any, sample: Any) -> float:
        raise InfraError("down")

    group = await scoring(down, retries=1).score(a_group("5"))
    assert group.trajectories[0].error == "down"


@pytest.mark.parametrize("plain", [True, False])
async def test_a_scorer_has_its_own_deadline(plain: bool) -> None:
    def slow(trajectory: Any, sample: Any) -> float:
        time.sleep(3)
        return 1.0

    async def slower(trajectory: Any, sample: Any) -> float:
        await asyncio.sleep(60)
        return 1.0

    function = slow if plain else slower
    group = await scoring(function, right, timeout_s=0.05).score(a_group("5"))
    assert group.trajectories[0].rewards.sources() == {"right": 1.0}
    assert group.trajectories[0].error == f"reward '{function.__name__}' timed out"


async def test_the_deadline_does_not_run_while_a_call_waits_its_turn() -> None:
    async def nap(trajectory: Any, sample: Any) -> float:
        await asyncio.sleep(0.3)
        return 1.0

    group = await scoring(nap, timeout_s=0.5).score(a_group(*["5"] * 130))
    assert [t.error for t in group.trajectories] == [None] * 130


async def test_cancelling_the_scoring_cancels_the_scorers() -> None:
    ended = asyncio.Event()

    async def endless(trajectory: Any, sample: Any) -> float:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return 1.0

    task = asyncio.create_task(scoring(endless).score(a_group("5")))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert ended.is_set()


SCORERS = """
from agentrl.contracts.reward import RewardEntry

def plain(trajectory, sample, bonus=0.0):
    return float(trajectory.answer == "5") + bonus

class Ranked:
    def __init__(self, top=1.0):
        self.top = top

    async def score(self, group):
        return [
            [
                RewardEntry(source="ranked", value=self.top * i),
                RewardEntry(source="place", value=i, weight=0.0),
            ]
            for i in range(len(group.trajectories))
        ]

class Blocking:
    def __init__(self, services):
        assert services.sandbox

    def score(self, group):
        return [[] for _ in group.trajectories]

not_callable = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "scorers.py").write_text(SCORERS)
    return f"{tmp_path}/scorers.py"


async def test_rewards_are_read_from_the_configuration(make_config: Any, file: str) -> None:
    config = make_config(
        rewards=[
            {"type": "task", "weight": 2},
            {"type": f"{file}:plain", "config": {"bonus": 0.5}},
            {"type": f"{file}:plain", "name": "again", "weight": 0},
            {"type": f"{file}:Ranked", "name": "ranked", "config": {"top": 3.0}, "weight": 0.5},
            {"type": f"{file}:Blocking"},
        ]
    )
    group = await load_scorers(config, ScoringTask(), NoSandbox(), base=None).score(
        a_group("5", "6")
    )
    assert [t.rewards.sources() for t in group.trajectories] == [
        {"task": 1.0, "plain": 1.5, "again": 1.0, "ranked": 0.0, "ranked/place": 0.0},
        {"task": 1.0, "plain": 0.5, "again": 0.0, "ranked": 3.0, "ranked/place": 1.0},
    ]
    assert [t.reward for t in group.trajectories] == [2 + 1.5, 2 + 0.5 + 1.5]


async def test_the_task_alone_scores_where_nothing_is_said(make_config: Any) -> None:
    config = make_config(rewards=[{"type": "task"}])
    assert config.rewards == type(config).model_validate({"model": {"path": "x"}}).rewards
    task = ScoringTask(lambda trajectory: 0.75)
    scored = await load_scorers(config, task, NoSandbox(), base=None).score(a_group("5"))
    assert scored.trajectories[0].rewards.sources() == {"task": 0.75}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"type": "FILE:missing"}, "has no 'missing'"),
        ({"type": "tasks"}, "entry point"),
        ({"type": "FILE:not_callable"}, "3 is not a callable object"),
        ({"type": "FILE:RewardEntry"}, r"lacks \['score'\]"),
        ({"type": "FILE:Ranked", "config": {"tops": 1}}, "does not take its config"),
        ({"type": "FILE:plain", "config": {"bones": 1}}, r"got \['bones'\]"),
        ({"type": "task", "config": {"reward": "x"}}, r"got \['reward'\]"),
    ],
)
def test_an_entry_that_does_not_work_out_is_refused(
    make_config: Any, file: str, entry: dict[str, Any], says: str
) -> None:
    config = make_config(rewards=[entry | {"type": entry["type"].replace("FILE", file)}])
    with pytest.raises(ConfigError, match=says):
        load_scorers(config, ScoringTask(), NoSandbox(), base=None)
