"""The reference of the KL penalty: the policy as it was before the first step, frozen.

It is saved with the run, because a resumed run's policy is no longer it.
"""

from pathlib import Path
from typing import Any

from agentrl.errors import ConfigError
from agentrl.learner.models import Policy
from agentrl.runs.folder import RunDir


def open_reference(run: RunDir, policy: Policy, step: int) -> Any:
    """Return the reference model: a copy at step 0, the saved one later.

    Raises:
        ConfigError: a later step finds none saved.
    """
    folder: Path = run.path / "reference"
    if step == 0:
        policy.model.save_pretrained(folder)
        return policy.frozen_copy()
    if not folder.is_dir():
        raise ConfigError(
            f"run {run.path} has no {folder.name}/ folder, which its KL penalty needs; start a "
            f"new run, or set algorithm.kl.coefficient=0"
        )
    reference = type(policy.model).from_pretrained(folder, dtype=policy.model.dtype)
    reference = reference.to(policy.device).eval()
    reference.requires_grad_(False)
    return reference
