"""The reward ledger: every reward a trajectory got, from whom, for which turn, at what weight.

Sources are slash-separated paths. Within an episode: `tool/<name>` (`calc_reward`),
`tool_step/<name>` (`execute`), `interaction` (`calculate_score`), `interaction_turn`. After its
group: `task`, the other scorers by their names, `penalty/<kind of failure>`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardEntry:
    """One reward. `turn` is the index of the turn it belongs to, None for the whole trajectory."""

    source: str
    value: float
    turn: int | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class RewardLedger:
    """The rewards of one trajectory, in the order in which they were given."""

    entries: tuple[RewardEntry, ...] = ()

    @property
    def total(self) -> float:
        """The weighted sum: the scalar that the advantage is computed from."""
        return sum(entry.value * entry.weight for entry in self.entries)

    def of(self, source: str) -> float:
        """Return the unweighted sum of `source` and of everything below it."""
        return sum(e.value for e in self.entries if _is_under(e.source, source))

    def sources(self) -> dict[str, float]:
        """Return the unweighted sum of each source, in the order in which they first came."""
        sums: dict[str, float] = {}
        for entry in self.entries:
            sums[entry.source] = sums.get(entry.source, 0.0) + entry.value
        return sums

    def __iter__(self) -> Iterator[RewardEntry]:
        """Iterate over the entries."""
        return iter(self.entries)


def finite(value: Any) -> float:
    """Return what a plugin gave as a reward; None counts as 0.0.

    Raises:
        ValueError: it is not a finite number, which would spoil a whole group's baseline.
        TypeError: it is not a number at all.
    """
    if isinstance(value, str | bytes):
        raise TypeError(f"expected a number as the reward, got {value!r}")
    number = float(0.0 if value is None else value)
    if not math.isfinite(number):
        raise ValueError(f"expected a finite reward, got {number}")
    return number


def weigh(entries: Iterable[RewardEntry], weights: Mapping[str, float]) -> RewardLedger:
    """Give each entry the weight of the longest source in `weights` that it lies under (else 1)."""

    def weight_of(source: str) -> float:
        matches = [key for key in weights if _is_under(source, key)]
        return weights[max(matches, key=len)] if matches else 1.0

    weighed = ((entry, weight_of(entry.source)) for entry in entries)
    return RewardLedger(tuple(e if e.weight == w else replace(e, weight=w) for e, w in weighed))


def _is_under(source: str, prefix: str) -> bool:
    return source == prefix or source.startswith(prefix + "/")
