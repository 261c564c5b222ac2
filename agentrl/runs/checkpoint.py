"""Checkpoints: everything a run needs to go on, written whole or not at all.

`checkpoints/step-N/` holds the model in the Hugging Face layout and `trainer_state.pt`, the states
of the run's other parts by name. It is written under a temporary name, flushed to disk, then
renamed; `latest` names the newest. A crash at any moment leaves the previous one.
"""

import errno
import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from agentrl.errors import ConfigError, NotReadyError, loading
from agentrl.runs.folder import RunFolder

STATE_FILE = "trainer_state.pt"


class Stateful(Protocol):
    """A part of a run that changes between steps; its state is plain data and tensors."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state."""

    def load_state_dict(self, state: Any) -> None:
        """Go on from a saved state."""


class Savable(Protocol):
    """A part that has a layout of its own on disk: the model."""

    def save(self, folder: Path) -> None:
        """Write it into an empty folder."""


class RandomState:
    """The global random generators, as a part of the run."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state of every generator."""
        import torch

        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"python": random.getstate(), "torch": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set every generator."""
        import torch

        random.setstate(state["python"])
        torch.set_rng_state(state["torch"])
        if state["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda"])


def save_checkpoint(
    folder: RunFolder, name: str, *, model: Savable, states: Mapping[str, Any], keep: int
) -> Path:
    """Write `checkpoints/<name>`, point `latest` at it, remove all but the newest `keep`.

    Raises:
        NotReadyError: the disk is full; the previous checkpoint is untouched.
    """
    import torch
    from safetensors import SafetensorError

    target = folder.checkpoints / name
    partial = folder.checkpoints / f".{name}.tmp"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        model.save(partial)
        with (partial / STATE_FILE).open("wb") as file:
            torch.save(dict(states), file)
        _flush(*partial.rglob("*"), partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        _point_latest(folder, name)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not _is_full(error, folder):
            raise
        raise NotReadyError(
            f"checkpoint {target}: the disk is full ({folder.free_mb():.0f} MB free); nothing was "
            f"half-written. Free some space and continue with --resume"
        ) from error
    _prune(folder, keep)
    return target


def latest_checkpoint(folder: RunFolder) -> Path | None:
    """Return the newest whole checkpoint; None if the run has not written one yet.

    Raises:
        ConfigError: the one that `latest` names is gone.
    """
    pointer = folder.path / "latest"
    if not pointer.exists():
        return None
    newest = folder.checkpoints / pointer.read_text(encoding="utf-8").strip()
    if not (newest / STATE_FILE).is_file():
        # Starting afresh instead would throw the run's records away.
        raise ConfigError(
            f"{pointer} names the checkpoint {newest}, which is not there; write the name of "
            f"another one into it, or start a new run with name=..."
        )
    return newest


def load_states(checkpoint: Path) -> dict[str, Any]:
    """Read the states of a checkpoint's parts, by name.

    Raises:
        ConfigError: they cannot be read.
    """
    import torch

    with loading(f"checkpoint {checkpoint}: its {STATE_FILE} cannot be read"):
        states: dict[str, Any] = torch.load(
            checkpoint / STATE_FILE, map_location="cpu", weights_only=True
        )
        return dict(states)


def restore(checkpoint: Path, states: Mapping[str, Any], parts: Mapping[str, Stateful]) -> None:
    """Set parts to what a checkpoint holds of them.

    Raises:
        ConfigError: it lacks one, or holds another kind of state.
    """
    for name, part in parts.items():
        with loading(f"checkpoint {checkpoint}: `{name}` in its {STATE_FILE} is not of this run"):
            part.load_state_dict(states[name])


def _flush(*paths: Path) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _point_latest(folder: RunFolder, name: str) -> None:
    partial = folder.path / ".latest.tmp"
    partial.write_text(name + "\n", encoding="utf-8")
    # The checkpoint's new name must reach the disk before the pointer to it does.
    _flush(partial, folder.checkpoints)
    partial.replace(folder.path / "latest")
    _flush(folder.path)


def _prune(folder: RunFolder, keep: int) -> None:
    there = [path for path in folder.checkpoints.iterdir() if not path.name.startswith(".")]
    for old in sorted(there, key=lambda path: path.stat().st_mtime_ns)[:-keep]:
        shutil.rmtree(old)


def _is_full(error: Exception, folder: RunFolder) -> bool:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    # Neither torch nor safetensors passes the error number on.
    return full or "No space left" in str(error) or folder.free_mb() < 1
