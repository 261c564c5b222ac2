"""A run's folder: its configuration, its records, and who may write into it.

    runs/<name>/ config.yaml metrics.jsonl log.jsonl traces/ checkpoints/ latest

One process writes into it at a time. Records only grow; a checkpoint remembers how long each was,
and resuming cuts them back to that, so that a resumed run's files equal those of one that was
never interrupted.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from agentrl.config.load import read_yaml
from agentrl.errors import ConfigError

METRICS, TRACES, LOCK = "metrics.jsonl", "traces", ".lock"
MAY_CHANGE = ("train.steps", "eval", "checkpoint", "output_dir", "name", "sandbox", "watch")
"""Keys that a resumed run may set anew: none alters the steps that were taken."""
_LOCKS: set[int] = set()


class RunFolder:
    """The folder of one run; making the object touches nothing. Its state are the records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._held: dict[str, int] | None = None

    def check(self, config: Mapping[str, Any], *, resume: bool) -> None:
        """Make sure that the folder is free, or that it holds the run to be resumed.

        A folder in which no step was ever recorded counts as free.

        Raises:
            ConfigError: the folder holds another run, or `resume` meets another configuration.
        """
        saved, metrics = self.path / "config.yaml", self.path / METRICS
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
        _check_same(before, config, self.path)

    @contextmanager
    def opened(self, config: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
        """Make the folder, keep others out of it, and save the resolved configuration in it.

        Raises:
            ConfigError: another process writes into it, or as `check`.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with _locked(self.path):
            self.check(config, resume=resume)
            saved = self.path / "config.yaml"
            partial = saved.with_suffix(".tmp")
            partial.write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
            partial.replace(saved)
            yield

    def record_metrics(self, step: int, phase: str, metrics: Mapping[str, float]) -> None:
        """Append one line of metrics."""
        line = json.dumps({"step": step, "phase": phase, **metrics}) + "\n"
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(line)

    def hold(self) -> None:
        """Let checkpoints remember the records as they are now, until `release`.

        What is written in between belongs to a step that may not come to its end.
        """
        self._held = self._sizes()

    def release(self) -> None:
        """Let what was written since `hold` count."""
        self._held = None

    def state_dict(self) -> dict[str, int]:
        """Return the length of each record in bytes."""
        return self._sizes() if self._held is None else dict(self._held)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Cut each record back to the given length; one that is not named is removed."""
        for name, size in self._sizes().items():
            if keep := state.get(name, 0):
                os.truncate(self.path / name, min(keep, size))
            else:
                (self.path / name).unlink()

    def set_aside(self) -> Path | None:
        """Move the records of an attempt that left no checkpoint out of the way; say where to."""
        if not any(self._sizes().values()):
            return None
        number = sum(1 for _ in self.path.glob("earlier-*")) + 1
        aside = self.path / f"earlier-{number}"
        aside.mkdir()
        for name in (METRICS, TRACES):
            if (self.path / name).exists():
                (self.path / name).rename(aside / name)
        return aside

    def free_mb(self) -> float:
        """Return the free space of the disk that holds the folder."""
        return shutil.disk_usage(self.path).free / 1e6

    def _sizes(self) -> dict[str, int]:
        files = [self.path / METRICS, *sorted((self.path / TRACES).rglob("*"))]
        return {
            file.relative_to(self.path).as_posix(): file.stat().st_size
            for file in files
            if file.is_file()
        }


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise ConfigError(
                f"run {folder}: process {holder} is writing into it; wait for its end or stop it, "
                f"or choose another folder with name=... or output_dir=..."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        _LOCKS.add(descriptor)
        yield
    finally:
        _LOCKS.discard(descriptor)
        os.close(descriptor)


def _forget_locks() -> None:
    """Close a forked child's copies, which would keep the lock beyond this process's death."""
    for descriptor in _LOCKS:
        os.close(descriptor)


os.register_at_fork(after_in_child=_forget_locks)


def _check_same(saved: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
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
