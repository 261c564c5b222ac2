"""The engine of running servers: sticky sessions, health checks, retries, deadlines, updates.

    generate -> the session's replica -> fails? -> out of service, another one -> ... -> deadline
    update_weights -> a folder of safetensors -> every replica: pause, load, drop caches, resume

While weights are updated no request is under way: each is answered by one version. A replica that
comes back gets the current weights before it serves again.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from agentrl.config.engine import HttpEngineConfig
from agentrl.contracts.engine import Completion, Sampling, WeightSource
from agentrl.engines.http.api import Call, ServerApi, SglangApi, VllmApi
from agentrl.engines.http.replicas import Replica, Replicas
from agentrl.errors import ConfigError, EngineError, NotReadyError

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S, HEALTH_TIMEOUT_S = 5.0, 5.0
LONGEST_PAUSE_S, RETRY_S = 5.0, 1.0
MISSES = 2
"""Of health checks in a row, before a replica's requests are sent to another."""


class ReplicaError(EngineError):
    """One replica failed; another may do."""


class HttpEngine:
    """Generates with one or several servers. Call `start` first.

    Args:
        config: where they are and what they speak.
        weight_dir: where weight updates are written, for both sides to see.
    """

    health_path = "/health"

    def __init__(self, config: HttpEngineConfig, *, weight_dir: Path | None = None) -> None:
        self.policy_version = 0
        self.failure: str | None = None
        self._config = config
        self._model = config.model
        self._weight_dir = weight_dir
        self._own_dir: Path | None = None
        self._folder: Path | None = None
        self._replicas = Replicas(config.urls)
        self._client: httpx.AsyncClient | None = None
        self._control: httpx.AsyncClient | None = None
        self._api: ServerApi | None = None
        self._watch: asyncio.Task[None] | None = None
        self._sync_s: float | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._bringing = asyncio.Lock()

    async def start(self) -> None:
        """Find out who is there.

        Raises:
            NotReadyError: no replica answers.
        """
        limits = httpx.Limits(max_connections=self._config.max_connections)
        timeout = httpx.Timeout(self._config.request_timeout_s, connect=CONNECT_TIMEOUT_S)
        self._client = httpx.AsyncClient(headers=self._headers(), limits=limits, timeout=timeout)
        # Of its own, so that neither waits for a connection behind the requests.
        timeout = httpx.Timeout(self._config.update_timeout_s, connect=CONNECT_TIMEOUT_S)
        self._control = httpx.AsyncClient(headers=self._headers(), timeout=timeout)
        try:
            self._api = await self._meet()
        except NotReadyError:
            await self.close()
            raise
        self._watch = asyncio.create_task(self._watch_health(), name="http-engine-health")

    async def _meet(self) -> ServerApi:
        """Find the servers, and what their model is called."""
        await asyncio.gather(*(self._check(replica) for replica in self._replicas.all))
        if not self._replicas.serving:
            troubles = self._replicas.troubles()
            raise NotReadyError(f"engine.urls: no server answers ({troubles}); start one")
        if self._config.api == "sglang":
            return SglangApi()
        self._model = self._model or await self._served_model()
        return VllmApi(self._model)

    async def generate(
        self, prompt_ids: list[int], sampling: Sampling, *, session: str
    ) -> Completion:
        """Complete one prompt on the session's replica, or on another if that one fails.

        Raises:
            EngineError: the deadline passed, or every attempt failed.
        """
        api, call = self._open_api, self._open_api.generate(prompt_ids, sampling)
        async with self._deadline(f"request of {session}"):
            while True:
                answer, version = await self._ask(call, session)
                with understood(answer):
                    completion = api.completion(answer, version)
                # None: the server aborted it, and the turn begins anew.
                if completion is not None:
                    return completion

    async def score(self, token_ids: list[int]) -> list[list[float]]:
        """Return every serving replica's log-probabilities of every token but the first.

        Raises:
            EngineError: as `generate`.
        """
        api, call = self._open_api, self._open_api.score(token_ids)
        answers: list[Any] = []
        async with self._deadline("score"):
            while not answers:
                await self._replicas.choose("score")
                serving = self._replicas.serving
                tried = await asyncio.gather(
                    *(self._request(replica, call) for replica in serving), return_exceptions=True
                )
                for outcome in tried:
                    if isinstance(outcome, BaseException) and not isinstance(outcome, ReplicaError):
                        raise outcome
                answers = [one for one in tried if not isinstance(one, BaseException | None)]
                if not answers:
                    await asyncio.sleep(RETRY_S)
        with understood(answers):
            return [api.scores(answer, token_ids) for answer in answers]

    async def update_weights(self, weights: WeightSource, version: int) -> None:
        """Write the weights where the servers see them, and have all in service load them.

        Raises:
            EngineError: no replica took them.
        """
        began = time.monotonic()
        try:
            folder = await asyncio.to_thread(self._write, weights, version)
        except OSError as error:
            raise EngineError(f"engine.weight_dir: {error}") from error
        await self._await_replica()
        async with self._bringing:
            self._open.clear()
            try:
                await self._bring_all(folder, version)
            finally:
                self._open.set()
        self._sync_s = time.monotonic() - began

    async def _await_replica(self) -> None:
        """Wait for a server that restarts, as long as an update may take."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.update_timeout_s):
                await self._replicas.choose("weights")

    async def _bring_all(self, folder: Path, version: int) -> None:
        before, self._folder = self._folder, folder
        outcomes = await asyncio.gather(
            *(self._bring(replica) for replica in self._replicas.serving),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if outcome is not None and not isinstance(outcome, EngineError | TimeoutError):
                raise outcome
        if not self._replicas.serving:
            raise EngineError(
                f"weight update to version {version}: no server took it "
                f"({self._replicas.troubles()}); {self._open_api.update_needs}"
            )
        self.policy_version = version
        if before is not None:
            await asyncio.to_thread(shutil.rmtree, before, ignore_errors=True)

    async def sleep(self) -> None:
        """Do nothing: the servers' memory is their own."""

    async def wake(self) -> None:
        """Do nothing."""

    def drain_metrics(self) -> dict[str, float]:
        """Return the duration of the last update, and how many replicas serve."""
        metrics = {"engine/replicas": float(len(self._replicas.serving))}
        if self._sync_s is not None:
            metrics["engine/sync_s"] = self._sync_s
            self._sync_s = None
        return metrics

    async def close(self) -> None:
        """Let go of the servers, which stay up. May be called twice."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        for client in (self._client, self._control):
            if client is not None:
                await client.aclose()
        for folder in (self._folder, self._own_dir):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def _open_api(self) -> ServerApi:
        if self._api is None:
            raise EngineError("the engine is not open; await start() first")
        return self._api

    def _headers(self) -> dict[str, str]:
        name = self._config.api_key_env
        if name is None:
            return {}
        if name not in os.environ:
            raise ConfigError(f"engine.api_key_env: the environment variable {name} is not set")
        return {"Authorization": f"Bearer {os.environ[name]}"}

    @contextlib.asynccontextmanager
    async def _deadline(self, what: str) -> Any:
        limit = self._config.request_timeout_s
        try:
            async with asyncio.timeout(limit):
                yield
        except TimeoutError:
            troubles = self._replicas.troubles()
            raise EngineError(
                f"{what}: no answer within engine.request_timeout_s={limit:g}"
                + (f" ({troubles})" if troubles else "")
            ) from None

    async def _ask(self, call: Call, session: str) -> tuple[Any, int]:
        """Send a call to the session's replica; after a failure, to the next.

        Returns the answer, and the version of the weights that gave it.
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
                    replica = await self._replicas.choose(session)
                    if not self._open.is_set():
                        await self._open.wait()
                        continue
                    version = self.policy_version
                    answer = await self._request(replica, call)
                    if answer is not None:
                        return answer, version
        raise AssertionError("unreachable")

    async def _request(self, replica: Replica, call: Call) -> Any:
        """Send one call that an update, or the replica's loss, may end: None is returned then."""
        assert self._client is not None
        try:
            return await replica.requests.run(self._post(self._client, replica, call))
        except ReplicaError:
            # It may be the request, an idle connection, or the replica: ask the replica.
            if replica.healthy:
                await self._check(replica)
            raise

    async def _post(self, client: httpx.AsyncClient, replica: Replica, call: Call) -> Any:
        """Send one call to one replica."""
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
        await asyncio.gather(*(self._watch_replica(replica) for replica in self._replicas.all))

    async def _watch_replica(self, replica: Replica) -> None:
        while True:
            await asyncio.sleep(self._config.health_every_s)
            await self._check(replica)

    async def _check(self, replica: Replica) -> None:
        """Ask one replica how it is; bring it the weights it missed."""
        assert self._control is not None
        path = replica.url + self.health_path
        try:
            answer = await self._control.get(path, timeout=HEALTH_TIMEOUT_S)
            answer.raise_for_status()
            if not replica.healthy:
                async with self._bringing:
                    if self._folder is not None:
                        await self._bring(replica)
        except (httpx.HTTPError, EngineError, TimeoutError) as error:
            replica.missed += 1
            # A busy server may be late once; one that refuses is gone.
            late = isinstance(error, httpx.TimeoutException)
            if not (replica.healthy and late and replica.missed < MISSES):
                self._replicas.down(replica, str(error) or type(error).__name__)
            return
        self._replicas.up(replica)

    async def _bring(self, replica: Replica) -> None:
        """Have one replica load the current folder."""
        assert self._control is not None
        calls = self._open_api.update(str(self._folder))
        try:
            async with asyncio.timeout(self._config.update_timeout_s):
                if self._config.on_update == "abort":
                    replica.requests.end()
                await replica.requests.settle()
                for call in calls:
                    await self._post(self._control, replica, call)
        except (EngineError, TimeoutError) as error:
            # What it computes with now is not known: it stays out until an update succeeds.
            self._replicas.down(replica, f"weight update: {error or 'deadline passed'}")
            raise

    async def _served_model(self) -> str:
        assert self._control is not None
        replica = self._replicas.serving[0]
        try:
            answer = await self._control.get(replica.url + "/v1/models")
        except httpx.HTTPError as error:
            raise NotReadyError(f"{replica.url}/v1/models: {error or type(error)}") from error
        if answer.status_code != 200 or not answer.json().get("data"):
            raise NotReadyError(f"{replica.url}/v1/models names no model; set engine.model")
        return str(answer.json()["data"][0]["id"])

    def _write(self, weights: WeightSource, version: int) -> Path:
        """Write the weights whole or not at all."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        if self._weight_dir is None:
            self._own_dir = self._weight_dir = Path(tempfile.mkdtemp(prefix="agentrl-weights-"))
            self._own_dir.chmod(0o755)
        self._weight_dir.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".weights-", dir=self._weight_dir))
        partial.chmod(0o755)
        tensors = {name: tensor.contiguous() for name, tensor in weights.named_tensors()}
        try:
            save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        except (SafetensorError, OSError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise OSError(f"{self._weight_dir}: {error}") from error
        for number in itertools.count():
            target = self._weight_dir / f"weights-{version}-{number}"
            if not target.exists():
                return partial.rename(target)
        raise AssertionError("unreachable")


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
