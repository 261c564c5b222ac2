"""Run the code that the model writes, in the run's sandbox, and show it what was printed.

Each call is a fresh program, or with `stateful: true` a cell of the trajectory's own notebook
session, which keeps its variables. A program that raises, or that hits a limit, is an ordinary
observation (outcome `ok`): seeing the error is what an interpreter is for, and the `status` metric
tells it apart. Only a call that cannot be run at all (a language the sandbox lacks) is the model's
error, and only a failing sandbox is an infrastructure error.
"""

from typing import Any
from uuid import uuid4

from pydantic import PositiveFloat, PositiveInt
from typing_extensions import override

from agentrl.config.base import Section
from agentrl.config.load import validate
from agentrl.contracts.sandbox import RunRequest, RunResult, RunStatus, Sandbox, Session
from agentrl.contracts.tool import BaseTool, Services, ToolResponse, ToolSchema
from agentrl.errors import SandboxError


class CodeInterpreterConfig(Section):
    """The `config` of the tool's YAML entry."""

    stateful: bool = False
    """Keep one Python session per trajectory; `language` and `compile_timeout_s` play no part."""
    language: str = "python"
    timeout_s: PositiveFloat = 5.0
    """Wall time of one program; keep it below `rollout.tool_timeout_s`."""
    compile_timeout_s: PositiveFloat = 30.0
    memory_mb: PositiveInt = 256
    max_output_bytes: PositiveInt = 16 * 1024
    traceback_lines: PositiveInt = 3
    """Last lines of the standard error that are shown of a program that failed."""


class CodeInterpreter(BaseTool):
    """Execute a program and return its output."""

    def __init__(self, config: dict[str, Any], tool_schema: ToolSchema) -> None:
        super().__init__(config, tool_schema)
        self.limits = validate(CodeInterpreterConfig, config, source=f"tool {self.name!r}: config")
        self._sandbox: Sandbox | None = None
        self._sessions: dict[str, Session] = {}

    @override
    async def open(self, services: Services) -> None:
        self._sandbox = await services.sandbox()

    @override
    async def close(self) -> None:
        self._sandbox = None  # the run closes it

    @override
    async def create(
        self, instance_id: str | None = None, **kwargs: Any
    ) -> tuple[str, ToolResponse]:
        """Begin a trajectory, with a session of its own if the tool is stateful.

        Raises:
            SandboxError: no session can be opened.
        """
        instance_id = instance_id or str(uuid4())
        if self.limits.stateful:
            self._sessions[instance_id] = await self._opened().open_session(
                memory_mb=self.limits.memory_mb, owner=instance_id
            )
        return instance_id, ToolResponse()

    @override
    async def release(self, instance_id: str, **kwargs: Any) -> None:
        session = self._sessions.pop(instance_id, None)
        if session is not None:
            await session.close()

    @override
    async def execute(
        self, instance_id: str, parameters: dict[str, Any], **kwargs: Any
    ) -> tuple[ToolResponse, float, dict[str, Any]]:
        """Run `parameters["code"]`.

        Raises:
            ToolError: the sandbox does not take the request (unknown language).
            SandboxError: the sandbox failed, or `open` was not called.
        """
        result = await self._run(instance_id, parameters["code"])
        if result.status is RunStatus.SANDBOX_ERROR:
            raise SandboxError(f"tool {self.name!r}: the sandbox failed: {result.stderr[-500:]}")
        metrics = {
            "status": result.status.value,
            "duration_s": result.duration_s,
            "cpu_s": result.cpu_s,
            "peak_memory_mb": result.peak_memory_mb,
        }
        return ToolResponse(text=self._observation(result)), 0.0, metrics

    async def _run(self, instance_id: str, code: str) -> RunResult:
        if self.limits.stateful:
            session = self._sessions[instance_id]
            return await session.run_cell(code, timeout_s=self.limits.timeout_s)
        return await self._opened().run(
            RunRequest(
                code=code,
                language=self.limits.language,
                compile_timeout_s=self.limits.compile_timeout_s,
                run_timeout_s=self.limits.timeout_s,
                memory_mb=self.limits.memory_mb,
                max_output_bytes=self.limits.max_output_bytes,
                owner=instance_id,
            )
        )

    def _opened(self) -> Sandbox:
        if self._sandbox is None:
            raise SandboxError(f"tool {self.name!r} has no sandbox: `open` was not called")
        return self._sandbox

    def _observation(self, result: RunResult) -> str:
        """Compose what the model sees: the output, then how the program failed, if it did."""
        parts = [result.stdout.rstrip("\n")]
        if result.status in (RunStatus.ERROR, RunStatus.COMPILE_ERROR):
            parts.append(self._failure(result))
        elif not result.ok:
            parts.append(f"[{self._limit(result.status)}]")
        elif result.stderr and not result.stdout:
            parts.append(self._tail(result.stderr))
        if result.ok and "stdout" in result.truncated:
            parts.append(f"[output cut at {self.limits.max_output_bytes} bytes]")
        return "\n".join(part for part in parts if part) or "[no output]"

    def _failure(self, result: RunResult) -> str:
        tail = self._tail(result.stderr)
        if result.signal is not None:
            return "\n".join(filter(None, [tail, f"[killed by signal {result.signal}]"]))
        return tail or f"[exit code {result.exit_code}]"

    def _tail(self, stderr: str) -> str:
        return "\n".join(stderr.rstrip("\n").split("\n")[-self.limits.traceback_lines :])

    def _limit(self, status: RunStatus) -> str:
        limits = {
            RunStatus.TIMEOUT: f"time limit of {self.limits.timeout_s:g} s reached",
            RunStatus.MEMORY_LIMIT: f"memory limit of {self.limits.memory_mb} MB reached",
            RunStatus.OUTPUT_LIMIT: f"output limit of {self.limits.max_output_bytes} bytes reached",
            RunStatus.DISK_LIMIT: "disk limit reached",
            RunStatus.PROCESS_LIMIT: "process limit reached",
        }
        return limits[status]
