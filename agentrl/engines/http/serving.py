"""Servers that are already running, as one: sticky sessions, health checks, retries, deadlines.

    ask -> the session's replica -> fails? -> out of service, another one -> ... -> deadline

Used by whatever speaks to servers over HTTP; it knows paths and bodies, not what they mean.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from agentrl.config.engine import HttpEngineConfig
from agentrl.engines.http.api import Call
from agentrl.engines.http.replicas import Replica, Replicas
from agentrl.errors import ConfigError, EngineError, NotReadyError

CONNECT_TIMEOUT_S, HEALTH_TIMEOUT_S = 5.0, 5.0
LONGEST_PAUSE_S = 5.0
MISSES = 2
"""Of health checks in a row, before a replica's requests are sent to another."""


class ReplicaError(EngineError):
    """One replica failed; another may do."""


class ServerPool:
    """All replicas of one model. Call `start` first.

    Args:
        config: where they are, and how patient to be.
        health_path: what is asked of one to see whether it is well.
        welcome: awaited for a replica that comes back, before it serves again.
    """

    def __init__(
        self,
        config: HttpEngineConfig,
        *,
        health_path: str = "/health",
        welcome: Callable[[Replica], Awaitable[None]] | None = None,
    ) -> None:
        self.replicas = Replicas(config.urls)
        self.version = 0
        """Of the weights that answer now; requests wait while `open` is not set."""
        self.open = asyncio.Event()
        self.open.set()
        self._config = config
        self._health_path = health_path
        self._welcome = welcome
        self._client: httpx.AsyncClient | None = None
        self._control: httpx.AsyncClient | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Find out who is there.

        Raises:
            ConfigError: the key is not there.
            NotReadyError: no replica answers.
        """
        limits = httpx.Limits(max_connections=self._config.max_connections)
        timeout = httpx.Timeout(self._config.request_timeout_s, connect=CONNECT_TIMEOUT_S)
        self._client = httpx.AsyncClient(headers=self._headers(), limits=limits, timeout=timeout)
        # Of its own, so that neither waits for a connection behind the requests.
        timeout = httpx.Timeout(self._config.update_timeout_s, connect=CONNECT_TIMEOUT_S)
        self._control = httpx.AsyncClient(headers=self._headers(), timeout=timeout)
        await asyncio.gather(*(self._check(replica) for replica in self.replicas.all))
        if not self.replicas.serving:
            troubles = self.replicas.troubles()
            await self.close()
            raise NotReadyError(f"engine.urls: no server answers ({troubles}); start one")
        self._watch = asyncio.create_task(self._watch_health(), name="http-engine-health")

    async def close(self) -> None:
        """Let go of the servers, which stay up. May be called twice."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        for client in (self._client, self._control):
            if client is not None:
                await client.aclose()

    async def served_model(self) -> str:
        """Return the name of the first model that is served.

        Raises:
            NotReadyError: there is none.
        """
        assert self._control is not None
        replica = self.replicas.serving[0]
        try:
            answer = await self._control.get(replica.url + "/v1/models")
        except httpx.HTTPError as error:
            raise NotReadyError(f"{replica.url}/v1/models: {error or type(error)}") from error
        if answer.status_code != 200 or not answer.json().get("data"):
            raise NotReadyError(f"{replica.url}/v1/models names no model; set engine.model")
        return str(answer.json()["data"][0]["id"])

    async def look(self, replica: Replica, path: str) -> Any:
        """Return the JSON of a replica's page; None where it has no such page.

        Raises:
            NotReadyError: it does not answer.
        """
        assert self._control is not None
        try:
            answer = await self._control.get(replica.url + path)
            return answer.json() if answer.status_code == 200 else None
        except httpx.HTTPError as error:
            raise NotReadyError(f"{replica.url}{path}: {error or type(error)}") from error
        except ValueError:
            return None

    @contextlib.asynccontextmanager
    async def deadline(self, what: str) -> AsyncIterator[None]:
        """Bound what is done inside by `engine.request_timeout_s`.

        Raises:
            EngineError: it took longer.
        """
        limit = self._config.request_timeout_s
        try:
            async with asyncio.timeout(limit):
                yield
        except TimeoutError:
            troubles = self.replicas.troubles()
            raise EngineError(
                f"{what}: no answer within engine.request_timeout_s={limit:g}"
                + (f" ({troubles})" if troubles else "")
            ) from None

    async def ask(self, call: Call, session: str) -> tuple[Any, int]:
        """Send a call to the session's replica; after a failure, to the next.

        Returns:
            The answer, and the version of the weights that gave it.

        Raises:
            EngineError: every attempt failed.
        """
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(ReplicaError),
            stop=stop_after_attempt(1 + self._config.retries),
            wait=wait_random_exponential(multiplier=0.1, max=LONGEST_PAUSE_S),
            reraise=True,
        )
        async for attempt in attempts:
            with attempt:
                while True:
                    replica = await self.replicas.choose(session)
                    if not self.open.is_set():
                        await self.open.wait()
                        continue
                    version = self.version
                    answer = await self.request(replica, call)
                    if answer is not None:
                        return answer, version
        raise AssertionError("unreachable")

    async def request(self, replica: Replica, call: Call) -> Any:
        """Send one call that an update, or the replica's loss, may end: None is returned then.

        Raises:
            ReplicaError: this replica failed.
            EngineError: the call is wrong.
        """
        assert self._client is not None
        try:
            return await replica.requests.run(self._post(self._client, replica, call))
        except ReplicaError:
            # It may be the request, an idle connection, or the replica: ask the replica.
            if replica.healthy:
                await self._check(replica)
            raise

    async def command(self, replica: Replica, call: Call) -> None:
        """Send one call that nothing may end.

        Raises:
            EngineError: it failed.
        """
        assert self._control is not None
        await self._post(self._control, replica, call)

    def _headers(self) -> dict[str, str]:
        name = self._config.api_key_env
        if name is None:
            return {}
        if name not in os.environ:
            raise ConfigError(f"engine.api_key_env: the environment variable {name} is not set")
        return {"Authorization": f"Bearer {os.environ[name]}"}

    async def _post(self, client: httpx.AsyncClient, replica: Replica, call: Call) -> Any:
        try:
            answer = await client.post(replica.url + call.path, json=dict(call.body))
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            raise ReplicaError(f"{replica.url}{call.path}: {why}") from error
        status = answer.status_code
        if status >= 400:
            transient = status == 429 or status >= 500
            why = f"{replica.url}{call.path}: {status} {answer.text[:300]}"
            raise ReplicaError(why) if transient else EngineError(why)
        try:
            return answer.json() if answer.content[:1] in (b"{", b"[") else {}
        except ValueError as error:
            raise ReplicaError(f"{replica.url}{call.path}: broken JSON: {error}") from error

    async def _watch_health(self) -> None:
        await asyncio.gather(*(self._watch_replica(replica) for replica in self.replicas.all))

    async def _watch_replica(self, replica: Replica) -> None:
        while True:
            await asyncio.sleep(self._config.health_every_s)
            await self._check(replica)

    async def _check(self, replica: Replica) -> None:
        """Ask one replica how it is; welcome one that comes back."""
        assert self._control is not None
        path = replica.url + self._health_path
        try:
            answer = await self._control.get(path, timeout=HEALTH_TIMEOUT_S)
            answer.raise_for_status()
            if not replica.healthy and self._welcome is not None:
                await self._welcome(replica)
        except (httpx.HTTPError, EngineError, TimeoutError) as error:
            replica.missed += 1
            # A busy server may be late once; one that refuses is gone.
            late = isinstance(error, httpx.TimeoutException)
            if not (replica.healthy and late and replica.missed < MISSES):
                self.replicas.down(replica, str(error) or type(error).__name__)
            return
        self.replicas.up(replica)


@contextlib.contextmanager
def understood(answer: Any) -> Iterator[None]:
    """Give one error to whatever is wrong with the answer that is read inside.

    Raises:
        EngineError: it is not what the interface promises.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise EngineError(
            f"the server's answer is not what engine.api promises ({error!r}): {str(answer)[:300]}"
        ) from error
