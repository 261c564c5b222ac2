"""An algorithm of your own: GRPO that asks for shorter answers, and adjusts how short.

algorithm: {type: examples/length_aware.py:LengthAware, target_length: 200, penalty: 0.2}
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from pydantic import NonNegativeFloat, PositiveFloat

from agentrl.algorithms.grpo import GRPO, GRPOConfig
from agentrl.algorithms.samples import TrainSample
from agentrl.contracts.metric import Metric
from agentrl.contracts.trajectory import Group


class LengthAwareConfig(GRPOConfig):
    """GRPO's options, and two more."""

    target_length: PositiveFloat = 200
    penalty: NonNegativeFloat = 0.2


class LengthAware(GRPO):
    """Takes from the advantage of answers by how far they exceed a target, which follows them."""

    Options = LengthAwareConfig
    options: LengthAwareConfig

    def __init__(self, options: LengthAwareConfig) -> None:
        super().__init__(options)
        self._target, self._mean = options.target_length, 0.0

    def before_train_step(self, step: int, groups: Sequence[Group]) -> None:
        """Measure how long the answers are."""
        lengths = [t.response_length for group in groups for t in group.kept]
        self._mean = sum(lengths) / max(len(lengths), 1)

    def credit(self, groups: Sequence[Group]) -> Iterator[TrainSample]:
        """Reshape GRPO's advantages."""
        for sample in super().credit(groups):
            excess = max(sample.loss_mask.sum() / self._target - 1, 0)
            yield replace(sample, advantages=sample.advantages - self.options.penalty * excess)

    def after_train_step(self, step: int, metrics: Any) -> None:
        """Let the target follow what was observed."""
        self._target += 0.1 * (self._mean - self._target)

    def get_metrics(self) -> dict[str, Metric]:
        """Report both."""
        values = {"mean_length": self._mean, "target_length": self._target}
        return {f"length_aware/{name}": Metric(value=value) for name, value in values.items()}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        return {"target": self._target, "mean": self._mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on."""
        self._target, self._mean = state["target"], state["mean"]
