"""How far a run has come: small numbers that every checkpoint holds."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal


@dataclass(kw_only=True, slots=True)
class Progress:
    """The state of a run's phases.

    `step` counts finished steps of reinforcement and is the policy's version; `sft_step` those of
    imitation, `phase` which of the two is under way; `position` the samples begun, `pending` the
    positions among them that no step has learnt from yet; `empty_steps` those in a row that had
    nothing to learn from; `success` the evaluations so far, by step.
    """

    phase: Literal["sft", "step"] = "step"
    sft_step: int = 0
    step: int = 0
    position: int = 0
    pending: list[int] = field(default_factory=list)
    empty_steps: int = 0
    success: dict[int, float] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """The name of the checkpoint that holds this progress."""
        return f"{self.phase}-{self.sft_step if self.phase == 'sft' else self.step}"

    def state_dict(self) -> dict[str, Any]:
        """Return a copy as plain data."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        for entry in fields(self):
            setattr(self, entry.name, state[entry.name])
