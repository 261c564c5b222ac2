"""The task for people who bring rows: verl's or TRL's columns, scored by a rule of their choice."""

import inspect
from collections.abc import Sequence
from typing import Any

from agentrl.contracts.sample import Sample
from agentrl.contracts.task import BaseTask, Split
from agentrl.contracts.tool import Services
from agentrl.contracts.trajectory import Trajectory
from agentrl.data.rows import read_rows
from agentrl.errors import ConfigError
from agentrl.plugins.reference import load_plugin


class FileTask(BaseTask):
    """Samples from `task.train` and `task.test`.

    `task.config.reward` names a function `(trajectory, sample) -> float`, plain or async. Without
    one, the reward is 1.0 when the last answer equals the ground truth, spaces and case aside.
    """

    def __init__(
        self, config: dict[str, Any], *, train: str | None, test: str | None, seed: int
    ) -> None:
        super().__init__(config, train=train, test=test, seed=seed)
        unknown = sorted(set(config) - {"reward"})
        if unknown:
            raise ConfigError(f"task.config: unknown keys {unknown}; valid keys: reward")
        self._reward = load_plugin(config["reward"]) if "reward" in config else exact_match

    def samples(self, split: Split) -> Sequence[Sample]:
        """Read a split's rows."""
        spec = self.train if split == "train" else self.test
        if spec is None:
            raise ConfigError(
                f"task.{split} is not set; name a .jsonl or .parquet file or a hub dataset"
            )
        rows = read_rows(spec, split=split)
        return [Sample.from_row(row, index=i, source=spec) for i, row in enumerate(rows)]

    async def score(self, trajectory: Trajectory, services: Services) -> float:
        """Apply the reward function."""
        value = self._reward(trajectory, trajectory.sample)
        return float(await value if inspect.isawaitable(value) else value)


def exact_match(trajectory: Trajectory, sample: Sample) -> float:
    """Return 1.0 when the last answer equals the ground truth, spaces and case aside."""
    answer = " ".join(trajectory.answer.split()).casefold()
    return float(answer == " ".join(str(sample.ground_truth).split()).casefold())
