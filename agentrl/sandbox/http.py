"""The client of a sandbox service: our own, or a SandboxFusion server.

Requests go to the least loaded of the living addresses. 429, 5xx and connection errors are tried
again with growing pauses, elsewhere if there is an elsewhere; an address that does not answer is
left out for a while.
"""

import base64
import logging
import os
from collections.abc import Mapping
from typing import Any

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)
from typing_extensions import override

from agentrl.config.sandbox import HttpSandboxConfig
from agentrl.contracts.sandbox import RunRequest, RunResult, RunStatus, Sandbox, Session
from agentrl.errors import NotReadyError, SandboxError, ToolError
from agentrl.sandbox.endpoints import Endpoint, Endpoints
from agentrl.sandbox.fusion import RunCodeRequest, RunCodeResponse
from agentrl.sandbox.wire import RunAnswer, RunBody, files_to_text

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
SERVER_NAME = "agentrl-sandbox"


class BusyError(SandboxError):
    """The service cannot take the request now; worth another attempt."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class HttpSandbox(Sandbox):
    """Runs programs on a service."""

    name = "http"

    def __init__(self, config: HttpSandboxConfig) -> None:
        self._config = config
        self._endpoints = Endpoints(config.urls)
        self._client: httpx.AsyncClient | None = None

    @override
    async def start(self) -> None:
        """Open the connection pool and see who is there.

        Raises:
            NotReadyError: no address answers.
        """
        token = os.environ.get(self._config.token_env)
        limits = httpx.Limits(
            max_connections=self._config.max_connections,
            max_keepalive_connections=self._config.max_connections,
        )
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {token}"} if token else {},
            limits=limits,
            timeout=httpx.Timeout(CONNECT_TIMEOUT_S, pool=None),
        )
        reasons = [await self._probe(endpoint) for endpoint in self._endpoints.all]
        if all(reason is not None for reason in reasons):
            await self.close()
            raise NotReadyError(
                "sandbox http: " + "; ".join(filter(None, reasons)) + "; start a service with "
                "`agentrl sandbox serve`, or correct sandbox.urls"
            )

    async def _probe(self, endpoint: Endpoint) -> str | None:
        """Find out whether the address is ours or SandboxFusion's; returns why neither, if so."""
        try:
            answer = await self._http.get(f"{endpoint.url}/healthz")
            endpoint.ours = answer.status_code == 200 and SERVER_NAME in answer.text
            if not endpoint.ours:
                answer = await self._http.get(f"{endpoint.url}/v1/ping")
                answer.raise_for_status()
        except httpx.HTTPError as error:
            endpoint.eject()
            return f"{endpoint.url}: {error or type(error).__name__}"
        return None

    @property
    def _http(self) -> httpx.AsyncClient:
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
        async for attempt in self._attempts():
            with attempt, self._endpoints.take() as endpoint:
                if endpoint.ours:
                    body: Any = RunBody.of(request)
                    answer = await self._post(endpoint, "/v1/run", body, timeout_s)
                    return _result(RunAnswer.model_validate_json(answer.content))
                body = RunCodeRequest.of(request)
                answer = await self._post(endpoint, "/run_code", body, timeout_s)
                response = RunCodeResponse.model_validate_json(answer.content)
                files = {name: base64.b64decode(data) for name, data in response.files.items()}
                return response.result(files)
        raise AssertionError("unreachable")

    def _attempts(self) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type(BusyError),
            stop=stop_after_attempt(1 + self._config.retries),
            wait=_pause,
            reraise=True,
        )

    async def _post(
        self, endpoint: Endpoint, path: str, body: Any, timeout_s: float
    ) -> httpx.Response:
        try:
            answer = await self._http.post(
                endpoint.url + path,
                content=body.model_dump_json(),
                headers={"Content-Type": "application/json"},
                timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S, pool=None),
            )
        except httpx.HTTPError as error:
            endpoint.eject()
            raise BusyError(
                f"sandbox at {endpoint.url}: {error or type(error).__name__}"
            ) from error
        if answer.status_code == 429 or answer.status_code >= 500:
            after = answer.headers.get("retry-after", "")
            raise BusyError(
                f"sandbox at {endpoint.url}: {answer.status_code} {answer.text[:200]}",
                float(after) if after.isdigit() else 0.0,
            )
        if answer.status_code in (401, 403):
            raise SandboxError(
                f"sandbox at {endpoint.url} refuses our token (environment variable "
                f"{self._config.token_env}): {answer.text[:200]}"
            )
        if answer.status_code >= 400:
            raise ToolError(f"sandbox refused the request: {answer.text[:500]}")
        return answer

    @override
    async def open_session(self, *, memory_mb: int = 256, owner: str = "") -> Session:
        """Open a session on one of our services; it stays at that address.

        Raises:
            SandboxError: no address offers sessions, or none can open one.
        """
        async for attempt in self._attempts():
            with attempt, self._endpoints.take() as endpoint:
                if not endpoint.ours:
                    raise SandboxError(f"{endpoint.url} is no agentrl service: it has no sessions")
                body = {"memory_mb": memory_mb, "owner": owner}
                answer = await self.call(endpoint, "POST", "/v1/sessions", body, 60.0)
                return HttpSession(self, endpoint, str(answer["id"]))
        raise AssertionError("unreachable")

    async def call(
        self, endpoint: Endpoint, method: str, path: str, body: Any, timeout_s: float
    ) -> Any:
        """Make one session call, which is never repeated: cells have effects."""
        try:
            answer = await self._http.request(
                method, endpoint.url + path, json=body, timeout=httpx.Timeout(timeout_s, pool=None)
            )
        except httpx.HTTPError as error:
            raise SandboxError(f"sandbox at {endpoint.url}: {error!r}") from error
        if answer.status_code in (400, 404, 422):
            raise ToolError(f"sandbox refused the request: {answer.text[:500]}")
        if answer.status_code == 429:
            raise BusyError(f"sandbox at {endpoint.url} is busy")
        if answer.is_error:
            raise SandboxError(f"sandbox at {endpoint.url}: {answer.status_code} {answer.text}")
        return answer.json()

    @override
    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    @override
    def isolation(self) -> str:
        return f"http: programs run on {', '.join(self._config.urls)}"


class HttpSession(Session):
    """A session that lives on a service."""

    def __init__(self, sandbox: HttpSandbox, endpoint: Endpoint, name: str) -> None:
        self._sandbox, self._endpoint, self._path = sandbox, endpoint, f"/v1/sessions/{name}"

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
            self._endpoint, "POST", f"{self._path}/cells", body, timeout_s + 60.0
        )
        return _result(RunAnswer.model_validate(answer))

    @override
    async def interrupt(self) -> None:
        await self._sandbox.call(self._endpoint, "POST", f"{self._path}/interrupt", None, 10.0)

    @override
    async def close(self) -> None:
        await self._sandbox.call(self._endpoint, "DELETE", self._path, None, 30.0)


_growing = wait_random_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S)


def _pause(state: RetryCallState) -> float:
    """Return the next pause in seconds: growing, and at least what the service asked for."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.retry_after_s if isinstance(error, BusyError) else 0.0
    return max(asked, _growing(state))


def _result(answer: RunAnswer) -> RunResult:
    if answer.status is RunStatus.SANDBOX_ERROR:
        raise SandboxError(f"sandbox service: {answer.reason}")
    return answer.result()
