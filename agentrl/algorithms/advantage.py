"""Advantages within a group: how much better than its siblings a rollout did."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from agentrl.algorithms.samples import TrainSample, samples_of
from agentrl.contracts.trajectory import Group

STD_EPSILON = 1e-6


def group_relative(rewards: Sequence[float], *, scale_by_std: bool) -> list[float]:
    """Return `r_i - mean(r)`, divided by the sample standard deviation if asked for.

    DeepSeekMath (arXiv:2402.03300), outcome supervision; undivided, Dr. GRPO (arXiv:2503.20783).
    A group of one has no baseline to compare with: its advantage is 0.
    """
    if len(rewards) < 2:
        return [0.0] * len(rewards)
    mean = statistics.fmean(rewards)
    scale = statistics.stdev(rewards) + STD_EPSILON if scale_by_std else 1.0
    return [(reward - mean) / scale for reward in rewards]


def leave_one_out(rewards: Sequence[float]) -> list[float]:
    """Return `r_i - mean of the others` (RLOO, arXiv:2402.14740); 0 in a group of one."""
    if len(rewards) < 2:
        return [0.0] * len(rewards)
    total, others = math.fsum(rewards), len(rewards) - 1
    return [reward - (total - reward) / others for reward in rewards]


def has_signal(rewards: Sequence[float]) -> bool:
    """Whether rewards differ, so that there is something to learn from."""
    return len(rewards) > 1 and max(rewards) - min(rewards) > STD_EPSILON


def credited(group: Group, advantages: Sequence[float]) -> Iterator[TrainSample]:
    """Yield the samples of the kept trajectories, each token with its trajectory's advantage."""
    for trajectory, advantage in zip(group.kept, advantages, strict=True):
        for sample in samples_of(trajectory):
            stream = np.full(len(sample.token_ids), advantage, np.float32)
            yield replace(sample, advantages=stream)
