"""The fake that users test with."""

import pytest

from agentrl.contracts.sandbox import RunRequest, RunResult, RunStatus
from agentrl.errors import SandboxError
from agentrl.sandbox.fake import FakeSandbox


async def test_it_answers_by_text_and_remembers() -> None:
    async with FakeSandbox({"print(2)": "2\n"}) as sandbox:
        assert (await sandbox.run(RunRequest(code="print(2)"))).stdout == "2\n"
        with pytest.raises(SandboxError, match="no answer"):
            await sandbox.run(RunRequest(code="other"))
        session = await sandbox.open_session(owner="me")
        assert (await session.run_cell("print(2)")).ok
    assert [request.owner for request in sandbox.requests] == ["", "", "me"]
    assert sandbox.executions == 1


async def test_it_answers_by_a_function() -> None:
    async with FakeSandbox(lambda request: RunResult(status=RunStatus.TIMEOUT)) as sandbox:
        assert (await sandbox.run(RunRequest(code=""))).status is RunStatus.TIMEOUT


async def test_it_wants_to_be_started() -> None:
    with pytest.raises(SandboxError, match="not started"):
        await FakeSandbox({}).run(RunRequest(code=""))
