"""Group-relative advantages: how much better than its siblings a rollout did.

Source: DeepSeekMath (arXiv:2402.03300), equation for outcome supervision; without the division by
the standard deviation, Dr. GRPO (arXiv:2503.20783).
"""

import statistics
from collections.abc import Sequence

STD_EPSILON = 1e-6


def group_relative(rewards: Sequence[float], *, scale_by_std: bool) -> list[float]:
    """Return `r_i - mean(r)`, divided by the sample standard deviation if asked for.

    A group of one has no baseline to compare with: its advantage is 0.
    """
    if len(rewards) < 2:
        return [0.0] * len(rewards)
    mean = statistics.fmean(rewards)
    scale = statistics.stdev(rewards) + STD_EPSILON if scale_by_std else 1.0
    return [(reward - mean) / scale for reward in rewards]


def has_signal(rewards: Sequence[float]) -> bool:
    """Whether rewards differ, so that there is something to learn from."""
    return len(rewards) > 1 and max(rewards) - min(rewards) > STD_EPSILON
