"""The HTTP service and its client, over a real socket."""

import asyncio
import base64
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import pytest_asyncio

from agentrl.config.sandbox import HttpSandboxConfig, SandboxConfig
from agentrl.contracts.sandbox import RunRequest, RunStatus
from agentrl.errors import NotReadyError, SandboxError, ToolError
from agentrl.sandbox import open_sandbox

uvicorn = pytest.importorskip("uvicorn", reason="the server extra is not installed")
from agentrl.sandbox.service import Service, ServiceOptions  # noqa: E402

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.bubblewrap]


ConfigFor = Callable[..., SandboxConfig]


@contextlib.asynccontextmanager
async def serving(config: SandboxConfig, token: str | None = None) -> AsyncIterator[str]:
    """Serve a sandbox on a free port; yields its address."""
    options = ServiceOptions(token=token, max_body_bytes=100_000)
    service = Service(open_sandbox(config), options)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(service.app(), log_level="warning"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(config_for: ConfigFor) -> AsyncIterator[str]:
    async with serving(config_for("bubblewrap")) as address:
        yield address


async def post(url: str, body: object, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.post(url, json=body, headers=headers)


async def test_run_code_answers_as_sandboxfusion_does(url: str) -> None:
    answer = await post(f"{url}/run_code", {"code": "print(input())", "language": "python",
                                            "stdin": "hi", "compile_timeout": 10})  # fmt: skip
    body = answer.json()
    assert (body["status"], body["message"]) == ("Success", "")
    assert body["run_result"]["status"] == "Finished"
    assert (body["run_result"]["return_code"], body["run_result"]["stdout"]) == (0, "hi\n")
    assert body["compile_result"] is None and body["executor_pod_name"]


async def test_run_code_tells_failure_timeout_and_sandbox_error_apart(url: str) -> None:
    failed = (await post(f"{url}/run_code", {"code": "1/0", "language": "python"})).json()
    assert (failed["status"], failed["run_result"]["return_code"]) == ("Failed", 1)
    slow = {"code": "while True: pass", "language": "python", "run_timeout": 0.2}
    timed_out = (await post(f"{url}/run_code", slow)).json()
    assert timed_out["status"] == "Failed"
    assert timed_out["run_result"]["status"] == "TimeLimitExceeded"
    unknown = (await post(f"{url}/run_code", {"code": "", "language": "cobol"})).json()
    assert unknown["status"] == "SandboxError" and "cobol" in unknown["message"]


async def test_run_code_moves_files(url: str) -> None:
    body = {
        "code": "open('b', 'w').write(open('a').read() * 2)",
        "language": "python",
        "files": {"a": base64.b64encode(b"12").decode(), "nothing": None},
        "fetch_files": ["b"],
    }
    answer = (await post(f"{url}/run_code", body)).json()
    assert base64.b64decode(answer["files"]["b"]) == b"1212"


async def test_run_jupyter_keeps_state_and_reports_errors(url: str) -> None:
    answer = (await post(f"{url}/run_jupyter", {"cells": ["x = 1", "x + 1", "1 / 0"]})).json()
    assert answer["status"] == "Success" and answer["driver"]["status"] == "Finished"
    assert [cell["stdout"] for cell in answer["cells"]] == ["", "2\n", ""]
    assert answer["cells"][2]["error"][0]["ename"] == "ZeroDivisionError"


async def test_ping_health_and_metrics_answer(url: str) -> None:
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{url}/v1/ping")).json() == "pong"
        assert "bubblewrap" in (await client.get(f"{url}/healthz")).json()["isolation"]
        metrics = (await client.get(f"{url}/metrics")).text
    assert 'agentrl_sandbox_executions_total{status="ok"}' in metrics
    assert "agentrl_sandbox_workers 2.0" in metrics


async def test_bad_bodies_are_refused(url: str) -> None:
    assert (await post(f"{url}/v1/run", {"code": 1})).status_code == 422
    assert (await post(f"{url}/v1/run", {"code": "", "colour": 1})).status_code == 422
    assert (await post(f"{url}/v1/run", {"code": "x" * 200_000})).status_code == 413
    refused = await post(f"{url}/v1/run", {"code": "", "files": {"../x": ""}})
    assert refused.status_code == 400 and "relative path" in refused.json()["error"]


async def test_the_client_returns_what_the_pool_would(url: str) -> None:
    async with open_sandbox(HttpSandboxConfig(urls=[url])) as sandbox:
        request = RunRequest(
            code="import sys; open('o', 'w').write('1'); sys.exit(3)", fetch_files=("o",)
        )
        result = await sandbox.run(request)
    assert (result.status, result.exit_code, result.files) == (RunStatus.ERROR, 3, {"o": b"1"})
    assert result.cpu_s > 0 and result.peak_memory_mb > 0


async def test_the_client_speaks_to_a_plain_sandboxfusion_server(url: str) -> None:
    async with open_sandbox(HttpSandboxConfig(urls=[url])) as sandbox:
        for endpoint in sandbox._endpoints.all:  # type: ignore[attr-defined]
            endpoint.ours = False
        result = await sandbox.run(RunRequest(code="print(2)"))
        timed_out = await sandbox.run(RunRequest(code="while 1: pass", run_timeout_s=0.2))
    assert (result.status, result.stdout) == (RunStatus.OK, "2\n")
    assert timed_out.status is RunStatus.TIMEOUT


async def test_sessions_work_over_http(url: str) -> None:
    async with open_sandbox(HttpSandboxConfig(urls=[url])) as sandbox:
        session = await sandbox.open_session()
        await session.run_cell("x = 41")
        assert (await session.run_cell("x + 1")).stdout == "42\n"
        await session.close()
        with pytest.raises(ToolError, match="no session"):
            await session.run_cell("x")


async def test_a_full_queue_is_429_and_the_client_waits(config_for: ConfigFor) -> None:
    async with serving(config_for("bubblewrap", workers=1, max_queue=1)) as url:
        slow = {"code": "import time; time.sleep(0.3)", "language": "python"}
        answers = await asyncio.gather(*[post(f"{url}/run_code", slow) for _ in range(5)])
        codes = sorted(answer.status_code for answer in answers)
        assert codes == [200, 200, 429, 429, 429]
        assert {a.headers.get("retry-after") for a in answers if a.status_code == 429} == {"1"}
        async with open_sandbox(HttpSandboxConfig(urls=[url])) as sandbox:
            results = await asyncio.gather(
                *[sandbox.run(RunRequest(code="print(1)")) for _ in range(5)]
            )
        assert all(result.ok for result in results)


async def test_a_token_is_asked_for(config_for: ConfigFor, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(config_for("bubblewrap", workers=1), token="secret") as url:
        assert (await post(f"{url}/run_code", {})).status_code == 401
        async with open_sandbox(HttpSandboxConfig(urls=[url])) as sandbox:
            with pytest.raises(SandboxError, match="AGENTRL_SANDBOX_TOKEN"):
                await sandbox.run(RunRequest(code=""))
        monkeypatch.setenv("AGENTRL_SANDBOX_TOKEN", "secret")
        async with open_sandbox(HttpSandboxConfig(urls=[url])) as sandbox:
            assert (await sandbox.run(RunRequest(code="print(1)"))).ok


async def test_a_dead_address_is_left_out(url: str) -> None:
    async with open_sandbox(HttpSandboxConfig(urls=["http://127.0.0.1:9", url])) as sandbox:
        results = [await sandbox.run(RunRequest(code="print(1)")) for _ in range(4)]
    assert all(result.ok for result in results)


async def test_no_living_address_names_the_remedy() -> None:
    with pytest.raises(NotReadyError, match="agentrl sandbox serve"):
        async with open_sandbox(HttpSandboxConfig(urls=["http://127.0.0.1:9"])):
            raise AssertionError
