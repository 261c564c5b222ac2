"""What a run tells whoever watches. The command line draws it; the base class is silent."""

from collections.abc import Mapping


class Reporter:
    """Override what you want to see."""

    def phase_started(self, name: str, total: int | None) -> None:
        """A phase (`sft`, `eval`, `train`) begins; `total` is its number of steps or episodes."""

    def progress(self, done: int) -> None:
        """`done` of the phase's total are finished."""

    def step_finished(self, step: int, metrics: Mapping[str, float]) -> None:
        """A training step has been recorded."""

    def phase_ended(self, name: str, summary: Mapping[str, float]) -> None:
        """A phase is over."""

    def note(self, text: str) -> None:
        """Something worth a line happened."""
