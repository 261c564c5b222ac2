r"""A sandbox for users' own tests: it runs nothing and answers what it is told to.

sandbox = FakeSandbox({"print(1+1)": "2\n"})
sandbox = FakeSandbox(lambda request: RunResult(status=RunStatus.TIMEOUT))
"""

from collections.abc import Callable, Mapping

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

    async def start(self) -> None:
        """Note that it was started."""
        self.running = True

    async def run(self, request: RunRequest) -> RunResult:
        """Return the answer to a program.

        Raises:
            SandboxError: it has none, or the sandbox was not started.
        """
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

    async def open_session(self, *, memory_mb: int = 256, owner: str = "") -> Session:
        """Open a session whose cells are answered like programs."""
        return FakeSession(self, owner)

    async def close(self) -> None:
        """Note that it was closed."""
        self.running = False

    def isolation(self) -> str:
        """Say that nothing runs."""
        return "fake: runs nothing"


class FakeSession(Session):
    """Cells are answered like programs; there is no state."""

    def __init__(self, sandbox: FakeSandbox, owner: str) -> None:
        self._sandbox, self._owner = sandbox, owner
        self.closed = False

    async def run_cell(
        self,
        code: str,
        *,
        timeout_s: float = 10.0,
        files: Mapping[str, bytes] | None = None,
        fetch_files: tuple[str, ...] = (),
    ) -> RunResult:
        """Return the answer to a cell."""
        request = RunRequest(
            code=code,
            files=files or {},
            fetch_files=fetch_files,
            run_timeout_s=timeout_s,
            owner=self._owner,
        )
        return await self._sandbox.run(request)

    async def interrupt(self) -> None:
        """Do nothing: cells end at once."""

    async def close(self) -> None:
        """Note that it was closed."""
        self.closed = True
