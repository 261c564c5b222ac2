import threading
from typing import Any

import pytest
from rewards_support import NoSandbox, a_group, a_sample

from agentrl.contracts.reward import RewardEntry
from agentrl.contracts.trajectory import Group
from agentrl.errors import ConfigError
from agentrl.rewards.functions import RewardFunction

SERVICES = NoSandbox()


async def given(function: Any, group: Group, **config: Any) -> list[list[RewardEntry]]:
    return [list(row) for row in await RewardFunction(function, "f", config, SERVICES).score(group)]


def entry(value: float, source: str = "f", weight: float = 1.0) -> RewardEntry:
    return RewardEntry(source=source, value=value, weight=weight)


async def test_ours_sees_one_trajectory_and_its_sample() -> None:
    def f(trajectory: Any, sample: Any) -> bool:
        return trajectory.answer == sample.ground_truth

    assert RewardFunction(f, "f", {}, SERVICES).alone
    assert await given(f, a_group("5")) == [[entry(1.0)]]


async def test_ours_sees_siblings_side_by_side() -> None:
    async def longest(trajectories: Any, sample: Any) -> list[float]:
        most = max(len(t.answer) for t in trajectories)
        return [float(len(t.answer) == most) for t in trajectories]

    assert not RewardFunction(longest, "f", {}, SERVICES).alone
    assert await given(longest, a_group("5", "fifty")) == [[entry(0.0)], [entry(1.0)]]


async def test_ours_may_take_the_services_and_its_config() -> None:
    def f(trajectory: Any, sample: Any, services: Any, scale: float = 1.0) -> float:
        assert services is SERVICES
        return scale * 2

    assert await given(f, a_group("5"), scale=3) == [[entry(6.0)]]


async def test_ours_may_take_its_config_in_one_mapping() -> None:
    def f(trajectory: Any, **options: Any) -> float:
        return float(options["scale"])

    assert await given(f, a_group("5"), scale=3) == [[entry(3.0)]]


async def test_verls_gets_the_rows_columns() -> None:
    def compute_score(
        data_source: Any, solution_str: Any, ground_truth: Any, extra_info: Any
    ) -> Any:
        assert (data_source, ground_truth) == ("math", "6")
        assert extra_info["split"] == "train"
        assert extra_info["level"] == 4
        assert solution_str == "I add.\n5"
        return {"score": 0.5, "acc": True, "pred": "5"}

    row = a_sample(
        data_source="math", reward_model={"ground_truth": "6"}, extra_info={"split": "train"}
    )
    assert await given(compute_score, a_group("5", sample=row)) == [
        [entry(0.5), entry(1.0, "f/acc", 0.0)]
    ]


async def test_trls_is_called_once_with_lists_of_every_column() -> None:
    calls: list[dict[str, Any]] = []

    def f(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        calls.append(columns | {"prompts": prompts, "completions": completions})
        return [1.0, None]

    assert await given(f, a_group("5", "6")) == [[entry(1.0)], []]
    (seen,) = calls
    assert seen["answer"] == ["5", "5"]
    assert seen["level"] == [4, 4]
    assert seen["ground_truth"] == ["5", "5"]
    assert seen["completion_ids"] == [[3, 4, 5, 6, 3, 4, 5]] * 2
    assert seen["prompts"] == [[{"role": "user", "content": "2+3?"}]] * 2
    assert [message["role"] for message in seen["completions"][1]] == [
        "assistant",
        "tool",
        "assistant",
    ]
    assert seen["completions"][1][-1]["content"] == "6"


async def test_trls_gets_strings_where_the_row_has_a_string() -> None:
    def f(completions: Any, level: Any) -> list[float]:
        return [len(text) * float(each) for text, each in zip(completions, level, strict=True)]

    row = a_sample(prompt="2+3?")
    assert await given(f, a_group("5", sample=row)) == [[entry(32.0)]]  # "I add.\n5" is 8 long


async def test_what_a_function_writes_into_its_messages_stays_its_own() -> None:
    def f(prompts: Any, completions: Any) -> list[float]:
        prompts[0].clear()
        completions[0][0]["content"] = "mine"
        return [0.0]

    group = a_group("5")
    await given(f, group)
    assert group == a_group("5")


async def test_a_plain_function_runs_beside_the_event_loop() -> None:
    def f(trajectory: Any, sample: Any) -> float:
        return float(threading.current_thread() is not threading.main_thread())

    assert await given(f, a_group("5")) == [[entry(1.0)]]


@pytest.mark.parametrize(
    ("function", "config", "says"),
    [
        (lambda answer: 1.0, {}, r"\['answer'\] fit none of:\n  \(trajectory, sample\)[^$]*in TRL"),
        (lambda trajectory, sample, tau: 1.0, {}, r"arguments \['tau'\]"),
        (lambda trajectory, sample: 1.0, {"tau": 1}, r"got \['tau'\]"),
        (lambda solution_str, services: 1.0, {}, r"arguments \['services'\]"),
        (dict, {}, "signature"),
    ],
)
def test_a_function_that_does_not_fit_is_refused_at_load(
    function: Any, config: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        RewardFunction(function, "f", config, SERVICES)
