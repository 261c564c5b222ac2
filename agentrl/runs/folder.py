"""A run's folder: its configuration, its records, and who may write into it.

    runs/<name>/ config.yaml metrics.jsonl log.jsonl traces/{train,eval}.jsonl checkpoints/ latest

Records only grow. A checkpoint remembers how long each was, and resuming cuts them back to that,
so that a resumed run's files equal those of one that was never interrupted.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from agentrl.config.load import read_yaml
from agentrl.config.run import RunConfig
from agentrl.contracts.trajectory import Group
from agentrl.errors import ConfigError
from agentrl.traces.store import Recorded, group_traces, write_traces

RECORDS = ("metrics.jsonl", "traces/train.jsonl", "traces/eval.jsonl")
MAY_CHANGE = ("train.steps", "eval", "checkpoint", "output_dir", "name", "sandbox")
"""Keys that a resumed run may set anew: none alters the steps that were taken."""


class RunDir:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"

    def check(self, config: RunConfig, *, resume: bool) -> None:
        """Make sure that the folder is free, or that it holds the run to be resumed.

        A folder in which no step was ever recorded counts as free.

        Raises:
            ConfigError: the folder holds another run, or `resume` meets another configuration.
        """
        saved, metrics = self.path / "config.yaml", self.path / "metrics.jsonl"
        if not saved.exists() or not metrics.exists() or not metrics.stat().st_size:
            return
        if not resume:
            raise ConfigError(
                f"output folder {self.path} holds a run already; continue it with --resume, or "
                f"choose another with name=... or output_dir=..."
            )
        before = read_yaml(saved)
        if not isinstance(before, dict):
            raise ConfigError(f"config file {saved}: expected a mapping of keys, got {before!r}")
        _check_same(before, config.model_dump(mode="json"), self.path)

    def open(self, config: RunConfig) -> None:
        """Make the folder and save the resolved configuration in it."""
        saved = self.path / "config.yaml"
        resolved = config.model_dump(mode="json")
        self.path.mkdir(parents=True, exist_ok=True)
        partial = saved.with_suffix(".tmp")
        partial.write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")
        partial.replace(saved)

    def record_metrics(self, step: int, phase: str, metrics: Mapping[str, float]) -> None:
        """Append one line of metrics."""
        line = json.dumps({"step": step, "phase": phase, **metrics}) + "\n"
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(line)

    def record_groups(self, step: int, split: Recorded, groups: Iterable[Group]) -> None:
        """Append every trajectory of some groups."""
        path = self.path / "traces" / f"{split}.jsonl"
        write_traces(path, group_traces(step, split, groups))

    def record_sizes(self) -> dict[str, int]:
        """Return the length of each record in bytes."""
        return {
            name: (self.path / name).stat().st_size if (self.path / name).exists() else 0
            for name in RECORDS
        }

    def cut_records(self, sizes: Mapping[str, int]) -> None:
        """Cut each record back to the given length."""
        for name in RECORDS:
            file = self.path / name
            if file.exists():
                with file.open("r+b") as handle:
                    handle.truncate(sizes.get(name, 0))

    def free_mb(self) -> float:
        """Return the free space of the disk that holds the folder."""
        return shutil.disk_usage(self.path).free / 1e6


def _check_same(saved: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    before, now = _flat(saved), _flat(wanted)
    changed = sorted(
        key
        for key in before.keys() | now.keys()
        if before.get(key) != now.get(key)
        and not any(key == may or key.startswith(may + ".") for may in MAY_CHANGE)
    )
    if changed:
        shown = ", ".join(f"{k}: {before.get(k)!r} -> {now.get(k)!r}" for k in changed[:5])
        raise ConfigError(
            f"run {path} was started with another configuration ({shown}); resume it with the "
            f"same one, or start a new run with name=..."
        )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
