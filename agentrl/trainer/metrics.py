"""What a batch of rollouts amounts to, under the field's metric names."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from agentrl.algorithms.advantage import has_signal
from agentrl.contracts.task import BaseTask
from agentrl.contracts.tool import ToolOutcome
from agentrl.contracts.trajectory import Group, Termination, Trajectory


def rollout_metrics(groups: Sequence[Group], task: BaseTask) -> dict[str, float]:
    """Summarise rollouts. Means over no values are left out."""
    trajectories = [t for group in groups for t in group.trajectories]
    kept = [t for group in groups for t in group.kept]
    records = [r for t in trajectories for r in t.tool_records]
    outcomes = Counter(r.outcome for r in records)
    terminations = Counter(t.termination for t in trajectories)
    zero = [group for group in groups if not has_signal([t.reward for t in group.kept])]
    metrics = {
        "rollout/trajectories": float(len(trajectories)),
        "rollout/dropped": float(len(trajectories) - len(kept)),
        "rollout/policy_tokens": float(sum(map(_policy_tokens, trajectories))),
        "frac_reward_zero_std": len(zero) / max(len(groups), 1),
        "tools/calls": float(len(records)),
    }
    metrics |= {f"tools/{kind}": float(outcomes[kind]) for kind in ToolOutcome}
    metrics |= {f"termination/{kind}": float(terminations[kind]) for kind in Termination}
    if records:
        failed = len(records) - outcomes[ToolOutcome.OK]
        metrics["tools/failure_frequency"] = failed / len(records)
    if kept:
        rewards = [t.reward for t in kept]
        metrics |= {
            "critic/rewards/mean": fmean(rewards),
            "critic/rewards/max": max(rewards),
            "critic/rewards/min": min(rewards),
            "success/mean": fmean(task.succeeded(t) for t in kept),
        }
    if trajectories:
        metrics |= {
            "response_length/mean": fmean(t.response_length for t in trajectories),
            "num_turns/mean": fmean(len(t.turns) for t in trajectories),
            "tool_call_counts/mean": len(records) / len(trajectories),
        }
    return metrics


def age_metrics(groups: Sequence[Group], version: int) -> dict[str, float]:
    """Say how many versions the trained tokens lag behind the weights that they update."""
    ages = [
        version - written
        for group in groups
        for t in group.kept
        for turn in t.policy_turns
        for written in turn.policy_versions
    ]
    if not ages:
        return {}
    return {"rollout/staleness/mean": fmean(ages), "rollout/staleness/max": float(max(ages))}


def timing_metrics(
    groups: Sequence[Group], began: float, rolled_out: float, ended: float
) -> dict[str, float]:
    """Return a step's durations in seconds, and its tokens per second."""
    tokens = sum(len(t.token_ids) for group in groups for t in group.trajectories)
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


def _policy_tokens(trajectory: Trajectory) -> int:
    return sum(len(turn.token_ids) for turn in trajectory.policy_turns)
