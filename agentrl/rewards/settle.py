"""The failure policy: what becomes of a trajectory in which something failed."""

from dataclasses import replace

import numpy as np

from agentrl.config.rollout import FailureAction, FailurePolicy
from agentrl.contracts.reward import RewardEntry, RewardLedger
from agentrl.contracts.tool import ToolOutcome
from agentrl.contracts.trajectory import Termination, Trajectory

_TRUNCATED = (Termination.MAX_TOKENS, Termination.MAX_CONTEXT, Termination.MAX_TURNS)


def settle(trajectory: Trajectory, policy: FailurePolicy) -> Trajectory:
    """Apply the policy's action for each kind of failure that happened in a scored trajectory.

    `penalise` enters `penalty/<kind>`, `mask` takes every token out of the loss, `drop` marks.
    """
    end = trajectory.termination
    calls = {record.outcome for record in trajectory.tool_records}
    timeout = end is Termination.TIMEOUT or ToolOutcome.TIMEOUT in calls
    model_error = end is Termination.MODEL_ERROR or ToolOutcome.MODEL_ERROR in calls
    happened = (
        ("infra_error", end is Termination.INFRA_ERROR, policy.infra_error),
        ("timeout", timeout, policy.timeout),
        ("model_error", model_error, policy.model_error),
        ("truncated", end in _TRUNCATED, policy.truncated),
    )
    actions = {kind: action for kind, did, action in happened if did}
    if not actions and not trajectory.dropped:
        return trajectory
    penalties = tuple(
        RewardEntry(source=f"penalty/{kind}", value=policy.penalty)
        for kind, action in actions.items()
        if action is FailureAction.PENALISE
    )
    turns = trajectory.turns
    if FailureAction.MASK in actions.values():
        turns = tuple(replace(turn, mask=np.zeros(len(turn.token_ids))) for turn in turns)
    return replace(
        trajectory,
        turns=turns,
        rewards=RewardLedger(trajectory.rewards.entries + penalties),
        dropped=FailureAction.DROP in actions.values(),
    )
