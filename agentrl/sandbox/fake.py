r"""A sandbox for users' own tests: it runs nothing and answers what it is told to.

sandbox = FakeSandbox({"print(1+1)": "2\n"})
sandbox = FakeSandbox(lambda request: RunResult(status=RunStatus.TIMEOUT))
"""

from collections.abc import Callable, Mapping

from typing_extensions import override

from agentrl.contracts.sandbox import RunRequest, RunResult, RunStatus, Sandbox, Session
from agentrl.errors import SandboxError

Answer = str | RunResult
Answers = Mapping[str, Answer] | Callable[[RunRequest], Answer]


class FakeSandbox(Sandbox):
    """Answers by the program's text, or by a function of the request; keeps what it was asked.

    An answer that is a string is the output of a program that ended well.
    """

    name = "fake"

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.requests: list[RunRequest] = []
        self.running = False

    @override
    async def start(self) -> None:
        self.running = True

    @override
    async def run(self, request: RunRequest) -> RunResult:
        """Return the answer to a program.

        Raises:
            SandboxError: it has none, or the sandbox was not started.
        """
        result = self.answer(request)
        self.executions += 1
        return result

    def answer(self, request: RunRequest) -> RunResult:
        """Look an answer up, as `run` does, for a program or a cell."""
        if not self.running:
            raise SandboxError("FakeSandbox was not started: use `async with` or start()")
        self.requests.append(request)
        if callable(self._answers):
            answer = self._answers(request)
        elif request.code in self._answers:
            answer = self._answers[request.code]
        else:
            raise SandboxError(
                f"FakeSandbox has no answer to {request.code!r}; it knows {list(self._answers)}"
            )
        if isinstance(answer, RunResult):
            return answer
        return RunResult(status=RunStatus.OK, exit_code=0, stdout=answer, sandbox_id="fake")

    @override
    async def open_session(self, *, memory_mb: int = 256, owner: str = "") -> Session:
        return FakeSession(self, owner)

    @override
    async def close(self) -> None:
        self.running = False

    @override
    def isolation(self) -> str:
        return "fake: runs nothing"


class FakeSession(Session):
    """Cells are answered like programs; there is no state."""

    def __init__(self, sandbox: FakeSandbox, owner: str) -> None:
        self._sandbox, self._owner = sandbox, owner
        self.closed = False

    @override
    async def run_cell(
        self,
        code: str,
        *,
        timeout_s: float = 10.0,
        files: Mapping[str, bytes] | None = None,
        fetch_files: tuple[str, ...] = (),
    ) -> RunResult:
        request = RunRequest(
            code=code,
            files=files or {},
            fetch_files=fetch_files,
            run_timeout_s=timeout_s,
            owner=self._owner,
        )
        return self._sandbox.answer(request)

    @override
    async def interrupt(self) -> None:
        return None

    @override
    async def close(self) -> None:
        self.closed = True
