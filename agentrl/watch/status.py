"""`status.json` in a run's folder: the last sign of life, and what the run waits for."""

import fcntl
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from agentrl.errors import ConfigError
from agentrl.runs.folder import LOCK
from agentrl.waits import Wait

STATUS = "status.json"
SHOWN = 20
"""Of the oldest waits, so many are written."""


class WaitStatus(BaseModel):
    """One wait as it was when the status was written; times in seconds."""

    model_config = ConfigDict(frozen=True)

    resource: str
    waiter: str
    remedy: str
    age_s: float
    deadline_s: float | None = None

    @classmethod
    def of(cls, wait: Wait) -> "WaitStatus":
        """Describe a wait that is under way."""
        return cls(
            resource=wait.resource,
            waiter=wait.waiter,
            remedy=wait.remedy,
            age_s=round(wait.age_s, 3),
            deadline_s=wait.deadline_s,
        )


class Status(BaseModel):
    """The state of a run at one moment.

    `time` is in seconds since the epoch; `phase` what is under way (`sft`, `train`, `eval`, or
    `starting`); `num_waits` counts all, `waits` are the oldest; `loop_held_by` names what blocks
    the event loop, if something does.
    """

    model_config = ConfigDict(frozen=True)

    pid: int
    time: float
    phase: str
    step: int
    num_waits: int = 0
    waits: tuple[WaitStatus, ...] = ()
    loop_held_by: str | None = None

    def write(self, folder: Path) -> None:
        """Write it into the folder, whole or not at all.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        partial = folder / f".{STATUS}.tmp"
        partial.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        partial.replace(folder / STATUS)

    @classmethod
    def read(cls, folder: Path) -> "Status | None":
        """Return the status of the run in `folder`; None if it has written none.

        Raises:
            ConfigError: the file is damaged.
        """
        path = folder / STATUS
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise ConfigError(
                f"{path}: expected a run's status, got something else "
                f"({error.error_count()} faults); delete the file, a live run writes it again"
            ) from error


def is_alive(folder: Path) -> bool:
    """Whether a process holds the run's folder, on this machine."""
    try:
        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
