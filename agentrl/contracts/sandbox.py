"""What a sandbox is to the rest of agentrl: run a program, tell exactly how it ended.

Backends live in `agentrl.sandbox`; the types stand here because tools are written against them.
A `RunResult` is about the *program* (its error, its limits); `SandboxError`, or the status
`sandbox_error`, is about the *sandbox*. The two are never confused.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self


class RunStatus(StrEnum):
    """How one execution ended."""

    OK = "ok"
    ERROR = "error"
    COMPILE_ERROR = "compile_error"
    TIMEOUT = "timeout"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    DISK_LIMIT = "disk_limit"
    PROCESS_LIMIT = "process_limit"
    SANDBOX_ERROR = "sandbox_error"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """One program to run in a fresh, empty work directory.

    `files` maps relative paths to contents placed before the run; `fetch_files` names those to
    bring back. `owner` groups requests (an episode's id) for fair queueing.
    """

    code: str
    language: str = "python"
    stdin: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    fetch_files: tuple[str, ...] = ()
    compile_timeout_s: float = 30.0
    run_timeout_s: float = 10.0
    memory_mb: int = 256
    max_output_bytes: int = 64 * 1024
    owner: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """How a program ended, what it printed, and what it cost.

    `truncated` names the streams that were cut or repaired (`stdout`, `stderr`, `invalid_utf8`).
    `attempts` is above 1 when the sandbox had to run the program again after losing a container.
    """

    status: RunStatus
    exit_code: int | None = None
    signal: int | None = None
    stdout: str = ""
    stderr: str = ""
    truncated: tuple[str, ...] = ()
    duration_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_mb: float = 0.0
    files: Mapping[str, bytes] = field(default_factory=dict)
    sandbox_id: str = ""
    attempts: int = 1

    @property
    def ok(self) -> bool:
        """Whether the program ran to its end and exited with 0."""
        return self.status is RunStatus.OK


class Session(ABC):
    """A notebook-like interpreter that keeps its state between cells."""

    @abstractmethod
    async def run_cell(
        self,
        code: str,
        *,
        timeout_s: float = 10.0,
        files: Mapping[str, bytes] | None = None,
        fetch_files: tuple[str, ...] = (),
    ) -> RunResult:
        """Run one cell; the value of a last expression is printed at the end of `stdout`.

        A cell that times out is interrupted and the state kept; one that ignores the interrupt
        is killed with the session.

        Raises:
            ToolError: the session has ended, a cell is still running, or a path is not acceptable.
            SandboxError: the sandbox failed; the session's state is lost.
        """

    @abstractmethod
    async def interrupt(self) -> None:
        """Interrupt the cell that is running, as Ctrl-C would; the state is kept."""

    @abstractmethod
    async def close(self) -> None:
        """End the interpreter and free its slot. May be called twice."""


class Sandbox(ABC):
    """A place where untrusted programs run. Use it as an async context manager."""

    name: str
    """The backend's name as the configuration writes it."""

    executions: int = 0
    """Programs that ran so far; the cells of sessions are not counted."""

    @abstractmethod
    async def start(self) -> None:
        """Make ready to run.

        Raises:
            NotReadyError: when the backend cannot be had, with the remedy.
        """

    @abstractmethod
    async def run(self, request: RunRequest) -> RunResult:
        """Run one program.

        Raises:
            SandboxError: when the sandbox failed and retries did not help.
            ToolError: when the request itself is not acceptable (unknown language, bad path).
        """

    @abstractmethod
    async def open_session(self, *, memory_mb: int = 256, owner: str = "") -> Session:
        """Open a stateful Python session."""

    @abstractmethod
    async def close(self) -> None:
        """End everything that was started. May be called twice."""

    @abstractmethod
    def isolation(self) -> str:
        """Say in one line which isolation is in force."""

    async def __aenter__(self) -> Self:
        """Start the sandbox."""
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close the sandbox."""
        await self.close()
