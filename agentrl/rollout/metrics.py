"""What a batch of rollouts amounts to, under the field's metric names."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean

import numpy as np

from agentrl.contracts.tool import ToolOutcome
from agentrl.contracts.trajectory import Group, Termination, Trajectory


def rollout_metrics(
    groups: Sequence[Group], succeeded: Callable[[Trajectory], bool]
) -> dict[str, float]:
    """Summarise rollouts. Means over no values are left out."""
    trajectories = [t for group in groups for t in group.trajectories]
    kept = [t for group in groups for t in group.kept]
    records = [r for t in trajectories for r in t.tool_records]
    outcomes = Counter(r.outcome for r in records)
    terminations = Counter(t.termination for t in trajectories)
    metrics = {
        "rollout/trajectories": float(len(trajectories)),
        "rollout/dropped": float(len(trajectories) - len(kept)),
        "rollout/policy_tokens": float(sum(map(_policy_tokens, trajectories))),
        "tools/calls": float(len(records)),
    }
    metrics |= {f"tools/{kind}": float(outcomes[kind]) for kind in ToolOutcome}
    metrics |= {f"termination/{kind}": float(terminations[kind]) for kind in Termination}
    failed = Counter(failure.kind for t in trajectories for failure in t.failures)
    metrics |= {f"failures/{kind}": float(count) for kind, count in sorted(failed.items())}
    if records:
        not_ok = len(records) - outcomes[ToolOutcome.OK]
        metrics["tools/failure_frequency"] = not_ok / len(records)
    if kept:
        metrics |= _reward_metrics(kept)
        metrics["success/mean"] = fmean(map(succeeded, kept))
    if trajectories:
        leaves = [len(t.leaves) for t in trajectories]
        metrics |= {
            "response_length/mean": fmean(t.response_length for t in trajectories),
            "num_turns/mean": fmean(len(t.turns) - 1 for t in trajectories),
            "tool_call_counts/mean": len(records) / len(trajectories),
            "rollout/branches/mean": fmean(leaves),
            "rollout/branches/max": float(max(leaves)),
        }
    return metrics


def signal_metrics(
    groups: Sequence[Group], has_signal: Callable[[Group], bool]
) -> dict[str, float]:
    """Return the share of groups that the algorithm cannot learn from."""
    without = sum(not has_signal(group) for group in groups)
    return {"frac_reward_zero_std": without / max(len(groups), 1)}


def age_metrics(groups: Iterable[Group], version: int) -> dict[str, float]:
    """Say how many versions the trained tokens lag behind the weights that they update."""
    versions = [*_versions(groups)]
    if not versions:
        return {}
    ages = version - np.concatenate(versions)
    return {
        "rollout/staleness/mean": float(ages.mean()),
        "rollout/staleness/max": float(ages.max()),
    }


def timing_metrics(
    groups: Sequence[Group], began: float, rolled_out: float, ended: float
) -> dict[str, float]:
    """Return a step's durations in seconds, and its tokens per second."""
    trajectories = [t for group in groups for t in group.trajectories]
    tokens = sum(len(turn.token_ids) for t in trajectories for turn in t.turns)
    return {
        "timing_s/rollout": rolled_out - began,
        "timing_s/update": ended - rolled_out,
        "timing_s/step": ended - began,
        "perf/throughput": tokens / (ended - began),
    }


def well_formed_share(trajectories: Sequence[Trajectory]) -> float | None:
    """Return the share of tool calls that could be read and fitted the schema; None without any."""
    records = [r for t in trajectories for r in t.tool_records]
    if not records:
        return None
    malformed = sum(r.outcome is ToolOutcome.MODEL_ERROR for r in records)
    return 1 - malformed / len(records)


def _reward_metrics(kept: Sequence[Trajectory]) -> dict[str, float]:
    rewards = [t.reward for t in kept]
    sources: defaultdict[str, float] = defaultdict(float)
    for source, value in (pair for t in kept for pair in t.rewards.sources().items()):
        sources[source] += value
    metrics = {
        "critic/rewards/mean": fmean(rewards),
        "critic/rewards/max": max(rewards),
        "critic/rewards/min": min(rewards),
    }
    return metrics | {f"reward/{s}/mean": sources[s] / len(kept) for s in sorted(sources)}


def _versions(groups: Iterable[Group]) -> Iterator[np.ndarray]:
    """Yield the versions of the kept trajectories' sampled tokens, turn by turn."""
    for turn in (turn for group in groups for t in group.kept for turn in t.policy_turns):
        if len(turn.versions):
            yield turn.versions


def _policy_tokens(trajectory: Trajectory) -> int:
    return sum(len(turn.token_ids) for turn in trajectory.policy_turns)
