"""Checkpoints: everything a run needs to go on, written whole or not at all.

`checkpoints/step-N/` holds the model in the Hugging Face layout and `trainer_state.pt` (optimizer
with its schedule, random states, progress). It is written under a temporary name, flushed to
disk, then renamed; `latest` names the newest. A crash at any moment leaves the previous one.
"""

import errno
import os
import random
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from agentrl.errors import ConfigError, NotReadyError, loading
from agentrl.learner.optimizer import Optimizer
from agentrl.learner.models import Policy
from agentrl.runs.folder import RunDir

STATE_FILE = "trainer_state.pt"


@dataclass(kw_only=True, slots=True)
class Progress:
    """How far a run has come.

    `step` counts finished GRPO steps and is the policy version; `sft_step` those of SFT;
    `position` the samples begun, `pending` the positions among them that no step has learnt from
    yet; `success` the evaluations so far, by step. `rewarded` counts trajectories with a positive
    reward, `rewarded_by_execution` those of them that executed a tool.
    """

    sft_step: int = 0
    step: int = 0
    position: int = 0
    pending: list[int] = field(default_factory=list)
    executions: int = 0
    rewarded: int = 0
    rewarded_by_execution: int = 0
    empty_steps: int = 0
    success: dict[int, float] = field(default_factory=dict)


def save_checkpoint(
    run: RunDir, name: str, *, policy: Policy, optimizer: Optimizer, progress: Progress, keep: int
) -> Path:
    """Write `checkpoints/<name>`, point `latest` at it, remove all but the newest `keep`.

    Raises:
        NotReadyError: the disk is full; the previous checkpoint is untouched.
    """
    target = run.checkpoints / name
    partial = run.checkpoints / f".{name}.tmp"
    state = {
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
        "random": _random_state(),
        "records": run.record_sizes(),
    }
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        policy.save(partial)
        with (partial / STATE_FILE).open("wb") as file:
            torch.save(state, file)
        _flush(*partial.rglob("*"), partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        _point_latest(run, name)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not _is_full(error, run):
            raise
        raise NotReadyError(
            f"checkpoint {target}: the disk is full ({run.free_mb():.0f} MB free); nothing was "
            f"half-written. Free some space and continue with --resume"
        ) from error
    _prune(run, keep)
    return target


def latest_checkpoint(run: RunDir) -> Path | None:
    """Return the newest whole checkpoint; None if the run has not written one yet.

    Raises:
        ConfigError: the one that `latest` names is gone.
    """
    pointer = run.path / "latest"
    if not pointer.exists():
        return None
    folder = run.checkpoints / pointer.read_text(encoding="utf-8").strip()
    if not (folder / STATE_FILE).is_file():
        # Starting afresh instead would throw the run's records away.
        raise ConfigError(
            f"{pointer} names the checkpoint {folder}, which is not there; write the name of "
            f"another one into it, or start a new run with name=..."
        )
    return folder


def load_state(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's trainer state.

    Raises:
        ConfigError: it is not a checkpoint of this version.
    """
    with loading(f"checkpoint {folder}: its {STATE_FILE} cannot be read"):
        state: dict[str, Any] = torch.load(
            folder / STATE_FILE, map_location="cpu", weights_only=True
        )
        state["progress"] = Progress(**state["progress"])
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Set the global random generators."""
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def _random_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"python": random.getstate(), "torch": torch.get_rng_state(), "cuda": cuda}


def _flush(*paths: Path) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _point_latest(run: RunDir, name: str) -> None:
    partial = run.path / ".latest.tmp"
    partial.write_text(name + "\n", encoding="utf-8")
    # The checkpoint's new name must reach the disk before the pointer to it does.
    _flush(partial, run.checkpoints)
    partial.replace(run.path / "latest")
    _flush(run.path)


def _prune(run: RunDir, keep: int) -> None:
    folders = [path for path in run.checkpoints.iterdir() if not path.name.startswith(".")]
    for folder in sorted(folders, key=lambda path: path.stat().st_mtime_ns)[:-keep]:
        shutil.rmtree(folder)


def _is_full(error: Exception, run: RunDir) -> bool:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    # Neither torch nor safetensors passes the error number on.
    return full or "No space left" in str(error) or run.free_mb() < 1
