"""SandboxFusion's wire format (`POST /run_code`, `POST /run_jupyter`), both ways.

Our finer statuses go into `message`, which its clients show and do not interpret. A list of
Jupyter cells runs in a session that lives for one request.
"""

import time
from collections.abc import AsyncIterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agentrl.contracts.sandbox import RunRequest, RunResult, RunStatus, Sandbox, Session
from agentrl.errors import SandboxError, ToolError
from agentrl.sandbox.wire import Base64, files_to_text

CommandStatus = Literal["Finished", "Error", "TimeLimitExceeded"]
Outcome = Literal["Success", "Failed", "SandboxError"]


class FusionModel(BaseModel):
    """A message of a foreign protocol: fields we do not know are ignored."""

    model_config = ConfigDict(extra="ignore")


class RunCodeRequest(FusionModel):
    """Body of `POST /run_code`. Time-outs in seconds; a memory limit of -1 is the server's own."""

    code: str
    language: str
    stdin: str | None = None
    files: dict[str, Base64 | None] = Field(default_factory=dict)
    fetch_files: list[str] = Field(default_factory=list)
    compile_timeout: float = 10.0
    run_timeout: float = 10.0
    memory_limit_MB: int = -1

    @classmethod
    def of(cls, request: RunRequest) -> "RunCodeRequest":
        """Write a request down."""
        return cls(
            code=request.code,
            language=FOREIGN_NAMES.get(request.language, request.language),
            stdin=request.stdin,
            files=dict(request.files),
            fetch_files=list(request.fetch_files),
            compile_timeout=request.compile_timeout_s,
            run_timeout=request.run_timeout_s,
            memory_limit_MB=request.memory_mb,
        )

    def request(self, memory_mb: int) -> RunRequest:
        """Return the request, with `memory_mb` where none is asked for."""
        return RunRequest(
            code=self.code,
            language=self.language,
            stdin=self.stdin or "",
            files={name: data for name, data in self.files.items() if data is not None},
            fetch_files=tuple(self.fetch_files),
            compile_timeout_s=self.compile_timeout,
            run_timeout_s=self.run_timeout,
            memory_mb=self.memory_limit_MB if self.memory_limit_MB > 0 else memory_mb,
        )


FOREIGN_NAMES = {"javascript": "nodejs"}


class CommandResult(FusionModel):
    """How a compiler or a program ended."""

    status: CommandStatus
    execution_time: float | None = None
    return_code: int | None = None
    stdout: str | None = None
    stderr: str | None = None

    @classmethod
    def of(cls, result: RunResult) -> "CommandResult":
        """Write a result down; a signal becomes a negative return code."""
        timed_out = result.status is RunStatus.TIMEOUT
        code = result.exit_code if result.signal is None else -result.signal
        return cls(
            status="TimeLimitExceeded" if timed_out else "Finished",
            execution_time=result.duration_s,
            return_code=None if timed_out else code,
            stdout=result.stdout,
            stderr=result.stderr,
        )


class RunCodeResponse(FusionModel):
    """Answer of `POST /run_code`."""

    status: Outcome
    message: str = ""
    compile_result: CommandResult | None = None
    run_result: CommandResult | None = None
    executor_pod_name: str | None = None
    files: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def of(cls, result: RunResult) -> "RunCodeResponse":
        """Write a result down."""
        command = CommandResult.of(result)
        failed_to_compile = result.status is RunStatus.COMPILE_ERROR
        return cls(
            status="Success" if result.ok else "Failed",
            message="" if result.ok else result.status.value,
            compile_result=command if failed_to_compile else None,
            run_result=None if failed_to_compile else command,
            executor_pod_name=result.sandbox_id,
            files=files_to_text(result.files),
        )

    @classmethod
    def failure(cls, reason: str) -> "RunCodeResponse":
        """Say that the sandbox failed, not the program."""
        return cls(status="SandboxError", message=reason)

    def result(self, files: dict[str, bytes]) -> RunResult:
        """Return the result as far as this protocol can tell.

        Raises:
            SandboxError: the service says that it failed.
        """
        command = self.run_result or self.compile_result
        if self.status == "SandboxError" or command is None or command.status == "Error":
            raise SandboxError(f"sandbox service: {self.message or 'it failed without a reason'}")
        code = command.return_code
        return RunResult(
            status=self._run_status(command),
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            stdout=command.stdout or "",
            stderr=command.stderr or "",
            duration_s=command.execution_time or 0.0,
            files=files,
            sandbox_id=self.executor_pod_name or "",
        )

    def _run_status(self, command: CommandResult) -> RunStatus:
        if command.status == "TimeLimitExceeded":
            return RunStatus.TIMEOUT
        if command.return_code == 0:
            return RunStatus.OK
        return RunStatus.COMPILE_ERROR if self.run_result is None else RunStatus.ERROR


class RunJupyterRequest(FusionModel):
    """Body of `POST /run_jupyter`. A cell time-out of 0 means only the total one holds."""

    cells: list[str]
    cell_timeout: float = 0.0
    total_timeout: float = 45.0
    kernel: Literal["python3"] = "python3"
    files: dict[str, Base64 | None] = Field(default_factory=dict)
    fetch_files: list[str] = Field(default_factory=list)


async def run_cells(sandbox: Sandbox, body: RunJupyterRequest) -> dict[str, Any]:
    """Run the cells in order, stopping at a time-out; returns the response's fields."""
    deadline = time.monotonic() + body.total_timeout
    started = time.monotonic()
    try:
        session = await sandbox.open_session()
    except (SandboxError, ToolError) as error:
        return {"status": "SandboxError", "message": str(error)}
    results: list[RunResult] = []
    try:
        async for result in _cells(session, body, deadline):
            results.append(result)
    except (SandboxError, ToolError) as error:
        return {"status": "SandboxError", "message": str(error)}
    finally:
        await session.close()
    timed_out = bool(results) and results[-1].status is RunStatus.TIMEOUT
    return {
        "status": "Failed" if timed_out else "Success",
        "message": "",
        "driver": {
            "status": "TimeLimitExceeded" if timed_out else "Finished",
            "execution_time": time.monotonic() - started,
            "return_code": None if timed_out else 0,
            "stdout": "",
            "stderr": "",
        },
        "cells": [_cell(result) for result in results],
        "executor_pod_name": results[-1].sandbox_id if results else None,
        "files": files_to_text(results[-1].files) if results else {},
    }


async def _cells(
    session: Session, body: RunJupyterRequest, deadline: float
) -> AsyncIterator[RunResult]:
    files = {name: data for name, data in body.files.items() if data is not None}
    for number, code in enumerate(body.cells):
        left = deadline - time.monotonic()
        timeout_s = min(left, body.cell_timeout) if body.cell_timeout > 0 else left
        last = number == len(body.cells) - 1
        result = await session.run_cell(
            code,
            timeout_s=max(timeout_s, 0.01),
            files=files if number == 0 else {},
            fetch_files=tuple(body.fetch_files) if last else (),
        )
        yield result
        if result.status is RunStatus.TIMEOUT:
            return


def _cell(result: RunResult) -> dict[str, Any]:
    """Return one cell in Jupyter's terms: output, display data, error."""
    error: list[dict[str, Any]] = []
    if not result.ok:
        lines = result.stderr.rstrip().splitlines() or [result.status.value]
        name, _, value = lines[-1].partition(": ")
        error.append({"ename": name, "evalue": value, "traceback": lines})
    return {"stdout": result.stdout, "stderr": result.stderr, "display": [], "error": error}
