"""What a run looks like: a live table in a terminal, plain lines in a pipe."""

import time
from collections.abc import Mapping
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from typing_extensions import override

from agentrl.runs.reporter import Reporter

ROWS = 12
SOURCES = 4
"""Of reward, that get a column."""
TITLES = {"sft": "SFT on demonstrations", "eval": "Evaluating", "train": "GRPO"}
COLUMNS: dict[str, tuple[str, str]] = {
    "reward": ("critic/rewards/mean", "{:.3f}"),
    "success": ("success/mean", "{:.1%}"),
    "tokens/s": ("perf/throughput", "{:,.0f}"),
    "turns": ("num_turns/mean", "{:.1f}"),
    "tool calls": ("tools/calls", "{:.0f}"),
    "failed": ("tools/failure_frequency", "{:.1%}"),
    "dropped": ("rollout/dropped", "{:.0f}"),
    "executed": ("sandbox/executions", "{:,.0f}"),
    "entropy": ("actor/entropy", "{:.3f}"),
    "s/step": ("timing_s/step", "{:.1f}"),
}


def open_display(console: Console) -> "Display":
    """Return the display that fits: live in a terminal, lines elsewhere."""
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(console)


class Display(Reporter):
    """A reporter with a beginning and an end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._total: int | None = None

    def __enter__(self) -> Self:
        """Begin to show."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the screen as it is."""

    @override
    def note(self, text: str) -> None:
        """Print a line; in a pipe it stays one line however long it is."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @override
    def phase_started(self, name: str, total: int | None) -> None:
        self._phase, self._total = name, total

    @override
    def phase_ended(self, name: str, summary: Mapping[str, float]) -> None:
        if name == "eval":
            share = summary.get("eval/well_formed_calls")
            calls = "" if share is None else f", {share:.1%} of tool calls well-formed"
            self.note(
                f"evaluation: success {summary['eval/success']:.1%} on "
                f"{summary['eval/samples']:.0f} problems{calls}"
            )
        elif name == "sft" and summary:
            self.note(f"SFT finished: loss {summary['sft/loss']:.3f}")


class PlainDisplay(Display):
    """Lines, for pipes and logs: every GRPO step, every tenth of SFT."""

    @override
    def phase_started(self, name: str, total: int | None) -> None:
        super().phase_started(name, total)
        unit = "samples" if name == "eval" else "steps"
        self.note(f"{TITLES.get(name, name)}: {total} {unit}")

    @override
    def step_finished(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._phase == "sft":
            every = max((self._total or 10) // 10, 1)
            if step % every == 0:
                self.note(f"sft {step}/{self._total}  loss {metrics['sft/loss']:.3f}")
            return
        cells = [f"{title} {text}" for title, text in _cells(metrics).items() if text]
        self.note(f"step {step}/{self._total}  " + "  ".join(cells))


class LiveDisplay(Display):
    """A progress bar over a table of the latest steps."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._rows: list[dict[str, str]] = []
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._live = Live(
            get_renderable=self._render, console=console, refresh_per_second=4, transient=False
        )
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        """Take the screen."""
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Give the screen back with the last state on it."""
        self._live.stop()

    @override
    def phase_started(self, name: str, total: int | None) -> None:
        super().phase_started(name, total)
        if name in self._tasks:
            self._progress.remove_task(self._tasks[name])
        self._tasks[name] = self._progress.add_task(TITLES.get(name, name), total=total, detail="")

    @override
    def progress(self, done: int) -> None:
        self._progress.update(self._tasks[self._phase], completed=done)

    @override
    def step_finished(self, step: int, metrics: Mapping[str, float]) -> None:
        if "sft/loss" in metrics:
            self._progress.update(
                self._tasks["sft"], completed=step, detail=f"loss {metrics['sft/loss']:.3f}"
            )
            return
        self._progress.update(self._tasks["train"], completed=step)
        self._rows = [*self._rows, {"step": str(step), **_cells(metrics)}][-ROWS:]

    @override
    def phase_ended(self, name: str, summary: Mapping[str, float]) -> None:
        super().phase_ended(name, summary)
        self._progress.remove_task(self._tasks.pop(name))
        self._phase = "train" if "train" in self._tasks else ""

    def _render(self) -> Group:
        if not self._rows:
            return Group(self._progress)
        table = Table(box=None, pad_edge=False)
        titles = list(dict.fromkeys(title for row in self._rows for title in row))
        for title in titles:
            table.add_column(title, justify="right")
        for row in self._rows:
            table.add_row(*(row.get(title, "") for title in titles))
        return Group(table, self._progress)


def _cells(metrics: Mapping[str, float]) -> dict[str, str]:
    cells = {
        title: layout.format(metrics[key]) if key in metrics else ""
        for title, (key, layout) in COLUMNS.items()
    }
    sources = {key: value for key, value in metrics.items() if key.startswith("reward/")}
    # One source alone is the reward itself.
    shown = list(sources.items())[:SOURCES] if len(sources) > 1 else []
    return cells | {key.removesuffix("/mean"): f"{value:.3f}" for key, value in shown}
