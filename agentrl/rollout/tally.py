"""What a run's closing line counts: programs that ran, and rewards that came through tools."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from agentrl.contracts.tool import ToolOutcome
from agentrl.contracts.trajectory import Group


@dataclass(kw_only=True, slots=True)
class Tally:
    """Totals of a run, evaluations included, as a part of its checkpoints.

    `executions` counts the programs that ran in the sandbox; `rewarded` the trajectories with a
    positive reward, `rewarded_by_execution` those of them that executed a tool.
    """

    executions: int = 0
    rewarded: int = 0
    rewarded_by_execution: int = 0
    _before: int = 0
    """Executions of the run's earlier processes."""

    def count(self, groups: Iterable[Group], *, executions: int) -> None:
        """Add some groups; `executions` are this process's so far."""
        self.executions = self._before + executions
        rewarded = [t for group in groups for t in group.kept if t.reward > 0]
        self.rewarded += len(rewarded)
        self.rewarded_by_execution += sum(
            any(record.outcome is ToolOutcome.OK for record in t.tool_records) for t in rewarded
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the totals."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from saved totals."""
        self.executions = self._before = state["executions"]
        self.rewarded = state["rewarded"]
        self.rewarded_by_execution = state["rewarded_by_execution"]
