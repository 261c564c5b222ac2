import json
from pathlib import Path
from typing import Any

import pytest
from rewards_support import NoSandbox, a_sample, a_trajectory

from agentrl.data.file_task import FileTask, exact_match
from agentrl.errors import ConfigError


def task(train: Path | None = None, **config: Any) -> FileTask:
    return FileTask(config, train=str(train) if train else None, test=None, seed=0)


def test_rows_keep_every_column(tmp_path: Path) -> None:
    row = {"prompt": "2+3?", "answer": "5", "level": 4, "tags": ["sum"]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (sample,) = task(tmp_path / "rows.jsonl").samples("train")
    assert sample.columns == row
    assert sample.ground_truth == "5"


async def test_the_score_is_an_exact_match() -> None:
    assert await task().score(a_trajectory(" 5\n"), NoSandbox()) == 1.0
    assert await task().score(a_trajectory("5 or 6"), NoSandbox()) == 0.0


@pytest.mark.parametrize(
    ("answer", "truth", "score"),
    [
        ("The  Sum", "the sum", 1.0),
        ("<think>6? no\n</think>\n\n5", 5, 1.0),
        ("<think>5</think> 6", "5", 0.0),
        ("", "5", 0.0),
    ],
)
def test_spaces_case_and_thinking_do_not_count(answer: str, truth: Any, score: float) -> None:
    sample = a_sample(answer=truth)
    assert exact_match(a_trajectory(answer, sample=sample), sample) == score


def test_a_row_without_ground_truth_is_no_match_for_none() -> None:
    sample = a_sample(answer=None)
    with pytest.raises(ValueError, match=r"no ground truth.*`answer`.*`rewards`"):
        exact_match(a_trajectory("None", sample=sample), sample)


def test_the_old_key_of_a_reward_function_names_the_new_one() -> None:
    with pytest.raises(ConfigError, match=r"write `rewards: \[\{type: my\.py:f\}\]`"):
        task(reward="my.py:f")


def test_other_keys_are_unknown() -> None:
    with pytest.raises(ConfigError, match=r"unknown keys \['rows'\]"):
        task(rows=3)


def test_a_split_that_is_not_set_is_named() -> None:
    with pytest.raises(ConfigError, match=r"task\.train is not set"):
        task().samples("train")
