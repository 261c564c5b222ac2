"""A metric says itself how it is reduced: over micro-batches, minibatches and ranks alike."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Reduction = Literal["sum", "mean", "max", "min"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One value and its reduction. `weight` counts what a `mean` is over, such as tokens."""

    value: float
    reduce: Reduction = "mean"
    weight: float = 1.0


def reduce_metrics(parts: Iterable[Mapping[str, Metric]]) -> dict[str, float]:
    """Reduce each name over the parts that hold it; a mean is weighted.

    Raises:
        ValueError: two parts reduce one name differently.
    """
    gathered: dict[str, list[Metric]] = {}
    for part in parts:
        for name, metric in part.items():
            gathered.setdefault(name, []).append(metric)
    return {name: _reduce(name, metrics) for name, metrics in gathered.items()}


def _reduce(name: str, metrics: list[Metric]) -> float:
    kinds = {metric.reduce for metric in metrics}
    if len(kinds) > 1:
        raise ValueError(f"metric {name!r}: expected one reduction, got {sorted(kinds)}")
    values = [metric.value for metric in metrics]
    match metrics[0].reduce:
        case "sum":
            return sum(values)
        case "max":
            return max(values)
        case "min":
            return min(values)
    total = sum(metric.weight for metric in metrics)
    if total == 0:
        return 0.0
    return sum(metric.value * metric.weight for metric in metrics) / total
