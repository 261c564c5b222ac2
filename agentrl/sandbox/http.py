"""The client of a sandbox service: our own, or a SandboxFusion server.

Requests go to the least loaded of the living addresses. 429, 5xx and connection errors are tried
again with growing pauses, elsewhere if there is an elsewhere; an address that does not answer is
left out for a while.
"""

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeVar

import pydantic
from typing_extensions import override

from agentrl.clients.border import RefusedError, TransientError
from agentrl.clients.client import HttpClient
from agentrl.clients.endpoints import Endpoint, Endpoints
from agentrl.clients.retry import attempts, deadline
from agentrl.config.sandbox import HttpSandboxConfig
from agentrl.contracts.sandbox import RunRequest, RunResult, RunStatus, Sandbox, Session
from agentrl.errors import InfraError, NotReadyError, SandboxError, ToolError
from agentrl.sandbox.fusion import RunCodeRequest, RunCodeResponse
from agentrl.sandbox.wire import RunAnswer, RunBody, files_to_text

PROBE_TIMEOUT_S, OPEN_TIMEOUT_S = 5.0, 60.0
LEFT_OUT_S = 5.0
"""How long an address is not asked after it did not answer."""
SERVER_NAME = "agentrl-sandbox"
T = TypeVar("T")


class Address(Endpoint):
    """An address; `ours` says that it speaks our own protocol."""

    ours = False


class HttpSandbox(Sandbox):
    """Runs programs on a service."""

    name = "http"

    def __init__(self, config: HttpSandboxConfig) -> None:
        self._config = config
        self._endpoints = Endpoints([Address(url) for url in config.urls])
        self._client: HttpClient | None = None

    @override
    async def start(self) -> None:
        """See who is there.

        Raises:
            NotReadyError: no address answers.
        """
        token = os.environ.get(self._config.token_env)
        self._client = HttpClient(
            headers={"Authorization": f"Bearer {token}"} if token else {},
            max_connections=self._config.max_connections,
        )
        found = await asyncio.gather(*(self._probe(service) for service in self._endpoints.all))
        if not any(found):
            troubles = self._endpoints.troubles()
            await self.close()
            raise NotReadyError(
                f"sandbox http: {troubles}; start a service with `agentrl sandbox serve`, or "
                "correct sandbox.urls"
            )

    async def _probe(self, service: Address) -> bool:
        """Find out whether it is ours or SandboxFusion's; what is neither is left out."""
        try:
            answer = await self._http.request(
                "GET", f"{service.url}/healthz", timeout_s=PROBE_TIMEOUT_S
            )
            service.ours = answer.status_code == 200 and SERVER_NAME in answer.text
            if not service.ours:
                await self._http.ask("GET", f"{service.url}/v1/ping", timeout_s=PROBE_TIMEOUT_S)
        except InfraError as error:
            self._endpoints.down(service, str(error), for_s=LEFT_OUT_S)
            return False
        return True

    @property
    def _http(self) -> HttpClient:
        if self._client is None:
            raise NotReadyError("the sandbox client is not open: use `async with` or start()")
        return self._client

    @override
    async def run(self, request: RunRequest) -> RunResult:
        """Run one program on the service.

        Raises:
            SandboxError: the service failed, or stayed busy through every attempt.
            ToolError: the service refused the request.
        """
        result = await self._run(request)
        self.executions += 1
        return result

    async def _run(self, request: RunRequest) -> RunResult:
        timeout_s = request.compile_timeout_s + request.run_timeout_s + self._config.queue_timeout_s

        async def run_on(service: Address) -> RunResult:
            if service.ours:
                body = RunBody.of(request)
                answer = await self._ask(service, "POST", "/v1/run", body, timeout_s)
                return _result(RunAnswer.model_validate_json(answer))
            asked = RunCodeRequest.of(request)
            answer = await self._ask(service, "POST", "/run_code", asked, timeout_s)
            response = RunCodeResponse.model_validate_json(answer)
            files = {name: base64.b64decode(data) for name, data in response.files.items()}
            return response.result(files)

        return await self._somewhere(run_on, timeout_s)

    async def _somewhere(self, ask: Callable[[Address], Awaitable[T]], timeout_s: float) -> T:
        """Ask a service, and again or another after a failure; one that hangs leaves time."""
        limit = 2 * timeout_s
        with sandbox_errors():
            async with deadline(
                "sandbox request",
                limit,
                key="twice its time-out",
                troubles=self._endpoints.troubles,
            ):
                async for attempt in attempts(self._config.retries, deadline_s=limit):
                    with attempt, self._endpoints.hold(self._endpoints.nearest()) as service:
                        return await ask(service)
        raise AssertionError("unreachable")

    async def _ask(
        self, service: Address, method: str, path: str, body: Any, timeout_s: float
    ) -> bytes:
        if isinstance(body, pydantic.BaseModel):
            body = body.model_dump_json().encode()
        try:
            answer = await self._http.ask(
                method, service.url + path, body=body, timeout_s=timeout_s
            )
        except TransientError as error:
            if not error.status:
                self._endpoints.down(service, str(error), for_s=LEFT_OUT_S)
            raise
        except RefusedError as error:
            if error.status in (401, 403):
                raise SandboxError(
                    f"sandbox at {service.url} refuses our token (environment variable "
                    f"{self._config.token_env}): {error.text[:200]}"
                ) from error
            raise ToolError(f"sandbox refused the request: {error.text[:500]}") from error
        return answer.content

    @override
    async def open_session(self, *, memory_mb: int = 256, owner: str = "") -> Session:
        """Open a session on one of our services; it stays at that address.

        Raises:
            SandboxError: no address offers sessions, or none can open one.
        """
        body = {"memory_mb": memory_mb, "owner": owner}

        async def open_on(service: Address) -> Session:
            if not service.ours:
                raise SandboxError(f"{service.url} is no agentrl service: it has no sessions")
            answer = await self._ask(service, "POST", "/v1/sessions", body, OPEN_TIMEOUT_S)
            return HttpSession(self, service, str(json.loads(answer)["id"]))

        return await self._somewhere(open_on, OPEN_TIMEOUT_S)

    async def call(
        self, service: Address, method: str, path: str, body: Any, timeout_s: float
    ) -> bytes:
        """Make one session call, which is never repeated: cells have effects.

        Raises:
            SandboxError: the service failed.
            ToolError: the service refused the request.
        """
        with sandbox_errors():
            return await self._ask(service, method, path, body, timeout_s)

    @override
    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    @override
    def isolation(self) -> str:
        return f"http: programs run on {', '.join(self._config.urls)}"


class HttpSession(Session):
    """A session that lives on a service."""

    def __init__(self, sandbox: HttpSandbox, service: Address, name: str) -> None:
        self._sandbox, self._service, self._path = sandbox, service, f"/v1/sessions/{name}"

    @override
    async def run_cell(
        self,
        code: str,
        *,
        timeout_s: float = 10.0,
        files: Mapping[str, bytes] | None = None,
        fetch_files: tuple[str, ...] = (),
    ) -> RunResult:
        body = {
            "code": code,
            "timeout_s": timeout_s,
            "files": files_to_text(files or {}),
            "fetch_files": list(fetch_files),
        }
        answer = await self._sandbox.call(
            self._service, "POST", f"{self._path}/cells", body, timeout_s + 60.0
        )
        return _result(RunAnswer.model_validate_json(answer))

    @override
    async def interrupt(self) -> None:
        await self._sandbox.call(self._service, "POST", f"{self._path}/interrupt", None, 10.0)

    @override
    async def close(self) -> None:
        await self._sandbox.call(self._service, "DELETE", self._path, None, 30.0)


@contextlib.contextmanager
def sandbox_errors() -> Iterator[None]:
    """Give what a service did the name that a sandbox's callers know.

    Raises:
        SandboxError: it failed, or stayed busy.
    """
    try:
        yield
    except TransientError as error:
        raise SandboxError(f"sandbox: {error}") from error


def _result(answer: RunAnswer) -> RunResult:
    if answer.status is RunStatus.SANDBOX_ERROR:
        raise SandboxError(f"sandbox service: {answer.reason}")
    return answer.result()
