"""Which phase is under way, as the run tells its reporter."""

from collections.abc import Mapping

from typing_extensions import override

from agentrl.runs.reporter import Reporter


class FollowingReporter(Reporter):
    """Passes everything on to `reporter`, and knows the phase."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._phases: tuple[str, ...] = ()

    @property
    def phase(self) -> str:
        """The innermost phase under way; else `starting` or `between phases`."""
        return self._phases[-1] if self._phases else "starting"

    @override
    def phase_started(self, name: str, total: int | None) -> None:
        self._phases = (*self._phases, name)
        self._reporter.phase_started(name, total)

    @override
    def progress(self, done: int) -> None:
        self._reporter.progress(done)

    @override
    def step_finished(self, step: int, metrics: Mapping[str, float]) -> None:
        self._reporter.step_finished(step, metrics)

    @override
    def phase_ended(self, name: str, summary: Mapping[str, float]) -> None:
        rest = tuple(phase for phase in self._phases if phase not in (name, "between phases"))
        self._phases = rest or ("between phases",)
        self._reporter.phase_ended(name, summary)

    @override
    def note(self, text: str) -> None:
        self._reporter.note(text)
