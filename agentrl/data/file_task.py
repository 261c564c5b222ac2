"""The task for people who bring rows: verl's or TRL's columns, compared with the ground truth."""

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from agentrl.contracts.sample import Sample
from agentrl.contracts.task import BaseTask, Split
from agentrl.contracts.tool import Services
from agentrl.contracts.trajectory import Trajectory
from agentrl.data.rows import read_rows
from agentrl.data.sample import read_sample
from agentrl.errors import ConfigError


class FileTask(BaseTask):
    """Samples from `task.train` and `task.test`, scored by `exact_match`.

    Another rule is an entry of `rewards`.
    """

    def __init__(
        self, config: dict[str, Any], *, train: str | None, test: str | None, seed: int
    ) -> None:
        super().__init__(config, train=train, test=test, seed=seed)
        if "reward" in config:
            raise ConfigError(
                "task.config.reward is no key any more; write `rewards: [{type: "
                f"{config['reward']}}}]` at the top level"
            )
        if config:
            raise ConfigError(f"task.config: unknown keys {sorted(config)}; rows need none")

    @override
    def samples(self, split: Split) -> Sequence[Sample]:
        spec = self.train if split == "train" else self.test
        if spec is None:
            raise ConfigError(
                f"task.{split} is not set; name a .jsonl or .parquet file or a hub dataset"
            )
        rows = read_rows(spec, split=split)
        return [read_sample(row, index=i, source=spec) for i, row in enumerate(rows)]

    @override
    async def score(self, trajectory: Trajectory, services: Services) -> float:
        return exact_match(trajectory, trajectory.sample)


def exact_match(trajectory: Trajectory, sample: Sample) -> float:
    """Return 1.0 when the last answer is the ground truth; spaces, case and thinking aside.

    Raises:
        ValueError: the sample has no ground truth.
    """
    if sample.ground_truth is None:
        raise ValueError(
            f"sample {sample.index} of {sample.data_source!r} has no ground truth to compare with; "
            f"expected a column `answer` or `reward_model: {{ground_truth: ...}}`, or another "
            f"`rewards` entry in place of `task`"
        )
    answer = trajectory.answer.rpartition("</think>")[2]
    return float(_folded(answer) == _folded(str(sample.ground_truth)))


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()
