"""The sandbox as an HTTP service: SandboxFusion's protocol, our own, metrics and health."""

import contextlib
import hmac
import json
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields
from functools import partial
from typing import TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agentrl.contracts.sandbox import RunResult, RunStatus, Sandbox, Session
from agentrl.errors import SandboxError, ToolError
from agentrl.sandbox import fusion
from agentrl.sandbox.pool import Pool, PoolStats
from agentrl.sandbox.queue import QueueFullError
from agentrl.sandbox.wire import CellBody, OpenBody, RunAnswer, RunBody

logger = logging.getLogger(__name__)

RETRY_AFTER_S = "1"
SERVER_NAME = "agentrl-sandbox"
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1, 3, 10, 30, 100)
BodyT = TypeVar("BodyT", bound=BaseModel)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceOptions:
    """What the service allows. `memory_mb` holds where a SandboxFusion client names no limit."""

    token: str | None = None
    max_body_bytes: int = 64 * 1024 * 1024
    memory_mb: int = 256


class RefusedError(Exception):
    """A request that is answered with an HTTP error."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


Handler = Callable[[Request], Awaitable[Response]]


class Sessions:
    """A table of open sessions. Abandoned ones end by themselves (`sandbox.session_idle_s`)."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._open: dict[str, Session] = {}

    async def open(self, body: OpenBody) -> str:
        """Open a session; returns its id."""
        session = await self._sandbox.open_session(memory_mb=body.memory_mb, owner=body.owner)
        name = secrets.token_urlsafe(16)
        self._open[name] = session
        return name

    def find(self, name: str) -> Session | None:
        """Return a session by its id."""
        return self._open.get(name)

    async def close_one(self, name: str) -> None:
        """Close a session; an unknown id is already closed."""
        session = self._open.pop(name, None)
        if session is not None:
            await session.close()

    async def close(self) -> None:
        """Close all of them."""
        for name in list(self._open):
            await self.close_one(name)


class Metrics:
    """Counts executions, and reads the pool's state when asked."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, sandbox: Sandbox) -> None:
        self._registry = CollectorRegistry()
        self._executions = Counter(
            "agentrl_sandbox_executions",
            "Executions by status",
            ["status"],
            registry=self._registry,
        )
        for status in RunStatus:
            self._executions.labels(status.value)
        self._seconds = Histogram(
            "agentrl_sandbox_execution_seconds",
            "Wall time of executions",
            buckets=SECONDS,
            registry=self._registry,
        )
        for name in (field.name for field in fields(PoolStats)):
            gauge = Gauge(f"agentrl_sandbox_{name}", f"Pool: {name}", registry=self._registry)
            if isinstance(sandbox, Pool):
                gauge.set_function(partial(_stat, sandbox, name))

    def count(self, status: str) -> None:
        """Count one execution."""
        self._executions.labels(status).inc()

    def duration(self, seconds: float) -> None:
        """Note how long one took."""
        self._seconds.observe(seconds)

    def text(self) -> bytes:
        """Return every figure."""
        return generate_latest(self._registry)


class Service:
    """The handlers, around one sandbox that is open while the application runs."""

    _sandbox: Sandbox
    _metrics: Metrics
    _sessions: Sessions

    def __init__(
        self, sandbox: AbstractAsyncContextManager[Sandbox], options: ServiceOptions
    ) -> None:
        self._opening, self._options = sandbox, options

    def app(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            self._route("/run_code", self._run_code, "POST"),
            self._route("/run_jupyter", self._run_jupyter, "POST"),
            self._route("/v1/run", self._run, "POST"),
            self._route("/v1/sessions", self._open_session, "POST"),
            self._route("/v1/sessions/{id}/cells", self._run_cell, "POST"),
            self._route("/v1/sessions/{id}/interrupt", self._interrupt, "POST"),
            self._route("/v1/sessions/{id}", self._close_session, "DELETE"),
            self._route("/metrics", self._show_metrics, "GET"),
            Route("/v1/ping", _ping, methods=["GET"]),
            Route("/healthz", self._health, methods=["GET"]),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan)

    def _route(self, path: str, handler: Handler, method: str) -> Route:
        async def guarded(request: Request) -> Response:
            try:
                self._authorise(request)
                return await handler(request)
            except RefusedError as error:
                return JSONResponse({"error": error.reason}, error.status)
            except ToolError as error:
                return JSONResponse({"error": str(error)}, 400)
            except QueueFullError as error:
                return JSONResponse(
                    {"error": str(error)}, 429, headers={"Retry-After": RETRY_AFTER_S}
                )
            except SandboxError as error:
                return JSONResponse({"error": str(error)}, 503)

        return Route(path, guarded, methods=[method])

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async with self._opening as self._sandbox:
            self._metrics, self._sessions = Metrics(self._sandbox), Sessions(self._sandbox)
            logger.info("sandbox service: %s", self._sandbox.isolation())
            yield
            await self._sessions.close()

    def _authorise(self, request: Request) -> None:
        if self._options.token is None:
            return
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._options.token}".encode()):
            raise RefusedError(401, "expected the header `Authorization: Bearer TOKEN`")

    async def _body(self, request: Request, model: type[BodyT]) -> BodyT:
        limit, body = self._options.max_body_bytes, bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise RefusedError(413, f"the body is larger than {limit} bytes")
        try:
            return model.model_validate_json(bytes(body) or b"{}")
        except ValidationError as error:
            faults = json.loads(error.json(include_url=False, include_context=False))
            raise RefusedError(422, json.dumps(faults)) from error

    async def _run_code(self, request: Request) -> Response:
        body = await self._body(request, fusion.RunCodeRequest)
        try:
            result = await self._sandbox.run(body.request(self._options.memory_mb))
        except QueueFullError:
            raise
        except (SandboxError, ToolError) as error:
            self._metrics.count(RunStatus.SANDBOX_ERROR.value)
            return _json(fusion.RunCodeResponse.failure(str(error)))
        self._observe(result)
        return _json(fusion.RunCodeResponse.of(result))

    async def _run_jupyter(self, request: Request) -> Response:
        body = await self._body(request, fusion.RunJupyterRequest)
        return JSONResponse(await fusion.run_cells(self._sandbox, body))

    async def _run(self, request: Request) -> Response:
        body = await self._body(request, RunBody)
        try:
            result = await self._sandbox.run(body.request())
        except QueueFullError:
            raise
        except SandboxError as error:
            self._metrics.count(RunStatus.SANDBOX_ERROR.value)
            return _json(RunAnswer(status=RunStatus.SANDBOX_ERROR, reason=str(error)))
        self._observe(result)
        return _json(RunAnswer.of(result))

    async def _open_session(self, request: Request) -> Response:
        body = await self._body(request, OpenBody)
        return JSONResponse({"id": await self._sessions.open(body)})

    async def _run_cell(self, request: Request) -> Response:
        body = await self._body(request, CellBody)
        session = self._session(request)
        result = await session.run_cell(
            body.code,
            timeout_s=body.timeout_s,
            files=body.files,
            fetch_files=tuple(body.fetch_files),
        )
        self._observe(result)
        return _json(RunAnswer.of(result))

    async def _interrupt(self, request: Request) -> Response:
        await self._session(request).interrupt()
        return JSONResponse({})

    async def _close_session(self, request: Request) -> Response:
        await self._sessions.close_one(request.path_params["id"])
        return JSONResponse({})

    def _session(self, request: Request) -> Session:
        session = self._sessions.find(request.path_params["id"])
        if session is None:
            raise RefusedError(404, f"no session {request.path_params['id']!r}")
        return session

    async def _show_metrics(self, _: Request) -> Response:
        return Response(self._metrics.text(), media_type=self._metrics.content_type)

    async def _health(self, _: Request) -> Response:
        health = {"server": SERVER_NAME, "isolation": self._sandbox.isolation()}
        return JSONResponse(health)

    def _observe(self, result: RunResult) -> None:
        self._metrics.count(result.status.value)
        self._metrics.duration(result.duration_s)


async def _ping(_: Request) -> Response:
    return JSONResponse("pong")


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")


def _stat(pool: Pool, name: str) -> float:
    return float(getattr(pool.stats(), name))
