"""Servers that are already running, as one: health checks, weights for newcomers, deadlines.

    ask -> the session's replica -> fails? -> out of service, another one -> ... -> deadline

Used by whatever speaks to servers over HTTP; it knows paths and bodies, not what they mean. What is
asked of any server (connections, retries, routing) is `agentrl.clients`.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from agentrl.clients.border import RefusedError, TransientError
from agentrl.clients.client import HttpClient
from agentrl.clients.endpoints import Endpoints
from agentrl.clients.retry import attempts, deadline
from agentrl.config.engine import HttpEngineConfig
from agentrl.engines.http.api import Call
from agentrl.engines.http.replicas import Replica
from agentrl.errors import ConfigError, EngineError, InfraError, NotReadyError

HEALTH_TIMEOUT_S = 5.0
MISSES = 2
"""Of health checks in a row, before a replica's requests are sent to another."""


class ServerPool:
    """All replicas of one model. Call `start` first.

    Args:
        config: where they are, and how patient to be.
        health_path: what is asked of one to see whether it is well.
        welcome: awaited for a replica that comes (back), before it serves.
    """

    def __init__(
        self,
        config: HttpEngineConfig,
        *,
        health_path: str = "/health",
        welcome: Callable[[Replica], Awaitable[None]] | None = None,
    ) -> None:
        self.replicas: Endpoints[Replica] = Endpoints([])
        for url in config.urls:
            self.replicas.add(Replica(url))
        self.version = 0
        """Of the weights that answer now; requests wait while `open` is not set."""
        self.open = asyncio.Event()
        self.open.set()
        self._config = config
        self._health_path = health_path
        self._welcome = welcome
        self._client = self._control = HttpClient()
        self._watches: dict[Replica, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Find out who is there.

        Raises:
            ConfigError: the key is not there.
            NotReadyError: no replica answers.
        """
        headers, most = self._headers(), self._config.max_connections
        self._client = HttpClient(headers=headers, max_connections=most)
        # Of its own, so that neither waits for a connection behind the requests.
        self._control = HttpClient(headers=headers)
        await asyncio.gather(*(self._check(replica) for replica in self.replicas.all))
        if not self.replicas.serving:
            troubles = self.replicas.troubles()
            await self.close()
            raise NotReadyError(f"engine.urls: no server answers ({troubles}); start one")
        for replica in self.replicas.all:
            self._watch(replica)

    async def add(self, url: str) -> None:
        """Take a server in, which serves once it has the current weights.

        Raises:
            ConfigError: it is in use already.
            NotReadyError: it does not answer, or does not take the weights.
        """
        replica = Replica(url)
        self.replicas.add(replica)
        await self._check(replica)
        if not replica.healthy:
            trouble = replica.trouble
            self.replicas.remove(replica)
            raise NotReadyError(f"expected a server to add, got {replica.url}: {trouble}")
        self._watch(replica)

    async def remove(self, url: str) -> None:
        """Ask a server nothing more; returns when it has answered what it was asked.

        Raises:
            ConfigError: it is not in use, or the last one.
        """
        replica = self.replicas.find(url)
        if len(self.replicas.all) == 1:
            raise ConfigError(f"{replica.url} is the last server; add another one first")
        self.replicas.remove(replica)
        await self._unwatch(replica)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.request_timeout_s):
                await replica.requests.settle()
        replica.requests.end()

    async def close(self) -> None:
        """Let go of the servers, which stay up. May be called twice."""
        for replica in list(self._watches):
            await self._unwatch(replica)
        for client in (self._client, self._control):
            await client.close()

    async def served_model(self) -> str:
        """Return the name of the first model that is served.

        Raises:
            NotReadyError: there is none.
        """
        url = self.replicas.serving[0].url + "/v1/models"
        try:
            answer = await self._control.ask("GET", url, timeout_s=HEALTH_TIMEOUT_S)
            with understood(answer.text):
                return str(answer.json()["data"][0]["id"])
        except InfraError as error:
            raise NotReadyError(f"{url} names no model ({error}); set engine.model") from error

    async def look(self, replica: Replica, path: str) -> Any:
        """Return the JSON of a replica's page; None where it has no such page.

        Raises:
            NotReadyError: it does not answer.
        """
        url = replica.url + path
        try:
            return (await self._control.ask("GET", url, timeout_s=HEALTH_TIMEOUT_S)).json()
        except (RefusedError, ValueError):
            return None
        except InfraError as error:
            raise NotReadyError(f"{url} does not answer: {error}") from error

    @contextlib.asynccontextmanager
    async def deadline(self, what: str) -> AsyncIterator[None]:
        """Bound what is done inside by `engine.request_timeout_s`.

        Raises:
            EngineError: it took longer.
        """
        limit, troubles = self._config.request_timeout_s, self.replicas.troubles
        with engine_errors():
            async with deadline(what, limit, key="engine.request_timeout_s", troubles=troubles):
                yield

    async def ask(self, call: Call, session: str) -> tuple[Any, int]:
        """Send a call to the session's replica; after a failure, to the next.

        Returns:
            The answer, and the version of the weights that gave it.

        Raises:
            TransientError: every attempt failed.
            RefusedError: the call is wrong.
        """
        config = self._config
        async for attempt in attempts(config.retries, deadline_s=config.request_timeout_s):
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
            TransientError: this replica failed.
            RefusedError: the call is wrong.
        """
        limit = self._config.request_timeout_s
        try:
            with self.replicas.hold(replica):
                return await replica.requests.run(self._post(self._client, replica, call, limit))
        except TransientError:
            # It may be the request, an idle connection, or the replica: ask the replica.
            if replica.healthy:
                await self._check(replica)
            raise

    async def command(self, replica: Replica, call: Call) -> None:
        """Send one call that nothing may end.

        Raises:
            EngineError: it failed.
        """
        with engine_errors():
            await self._post(self._control, replica, call, self._config.update_timeout_s)

    def _headers(self) -> dict[str, str]:
        name = self._config.api_key_env
        if name is None:
            return {}
        if name not in os.environ:
            raise ConfigError(f"engine.api_key_env: the environment variable {name} is not set")
        return {"Authorization": f"Bearer {os.environ[name]}"}

    async def _post(
        self, client: HttpClient, replica: Replica, call: Call, timeout_s: float
    ) -> Any:
        url = replica.url + call.path
        answer = await client.ask("POST", url, body=dict(call.body), timeout_s=timeout_s)
        try:
            return answer.json() if answer.content[:1] in (b"{", b"[") else {}
        except ValueError as error:
            raise TransientError(
                f"{url}: broken JSON: {error} (expected a whole answer; see the server's log)"
            ) from error

    def _watch(self, replica: Replica) -> None:
        name = f"health of {replica.url}"
        self._watches[replica] = asyncio.create_task(self._watch_health(replica), name=name)

    async def _unwatch(self, replica: Replica) -> None:
        watch = self._watches.pop(replica, None)
        if watch is not None:
            watch.cancel()
            await asyncio.wait([watch])

    async def _watch_health(self, replica: Replica) -> None:
        while True:
            await asyncio.sleep(self._config.health_every_s)
            await self._check(replica)

    async def _check(self, replica: Replica) -> None:
        """Ask one replica how it is; welcome one that comes (back)."""
        url = replica.url + self._health_path
        try:
            await self._control.ask("GET", url, timeout_s=HEALTH_TIMEOUT_S)
            if not replica.healthy and self._welcome is not None:
                await self._welcome(replica)
        except (InfraError, TimeoutError) as error:
            replica.missed += 1
            # A busy server may be late once; one that refuses is gone.
            late = isinstance(error, TransientError) and error.late
            if not (replica.healthy and late and replica.missed < MISSES):
                self.replicas.down(replica, str(error) or type(error).__name__)
                replica.requests.end()
            return
        replica.missed = 0
        self.replicas.up(replica)


@contextlib.contextmanager
def engine_errors() -> Iterator[None]:
    """Give what a server did the name that an engine's callers know.

    Raises:
        EngineError: it failed, or refused.
    """
    try:
        yield
    except (TransientError, RefusedError) as error:
        raise EngineError(str(error)) from error


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
