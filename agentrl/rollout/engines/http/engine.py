"""The engine of running servers: sticky sessions, health checks, retries, deadlines, updates.

    generate -> the session's replica -> fails? -> out of service, another one -> ... -> deadline
    update_weights -> a folder of safetensors -> every replica: pause, load, drop caches, resume

A replica that comes back gets the current weights before it serves again.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from agentrl.config.engine import HttpEngineConfig
from agentrl.errors import ConfigError, EngineError, NotReadyError
from agentrl.rollout.engine import Completion, Sampling, WeightSource
from agentrl.rollout.engines.http.api import Call, ServerApi, SglangApi, VllmApi
from agentrl.rollout.engines.http.replicas import Replica, Replicas

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S, HEALTH_TIMEOUT_S = 5.0, 5.0
LONGEST_PAUSE_S = 5.0


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
        self._own_dir = None if weight_dir else tempfile.mkdtemp(prefix="agentrl-weights-")
        self._weight_dir = weight_dir or Path(str(self._own_dir))
        self._folder: Path | None = None
        self._replicas = Replicas(config.urls)
        self._client: httpx.AsyncClient | None = None
        self._api: ServerApi | None = None
        self._watch: asyncio.Task[None] | None = None
        self._sync_s: float | None = None
        self._current = asyncio.Event()
        self._current.set()

    async def start(self) -> None:
        """Find out who is there.

        Raises:
            NotReadyError: no replica answers.
        """
        limits = httpx.Limits(max_connections=self._config.max_connections)
        timeout = httpx.Timeout(self._config.request_timeout_s, connect=CONNECT_TIMEOUT_S)
        self._client = httpx.AsyncClient(headers=self._headers(), limits=limits, timeout=timeout)
        self._api = SglangApi() if self._config.api == "sglang" else VllmApi("")
        await asyncio.gather(*(self._check(replica) for replica in self._replicas.all))
        if not self._replicas.serving:
            troubles = self._replicas.troubles()
            await self.close()
            raise NotReadyError(f"engine.urls: no server answers ({troubles}); start one")
        if self._config.api == "vllm":
            self._api = VllmApi(self._config.model or await self._served_model())
        self._watch = asyncio.create_task(self._watch_health(), name="http-engine-health")

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
                # What a paused server queues would run with weights other than it is stamped with.
                await self._current.wait()
                version = self.policy_version
                answer = await self._ask(call, session)
                completion = api.completion(answer, version)
                # None: a weight update ended it, and the turn begins anew.
                if completion is not None:
                    return completion

    async def score(self, token_ids: list[int]) -> list[float]:
        """Return the log-probability of every token but the first, given those before it.

        Every replica in service is asked, so that none with old weights goes unnoticed; where they
        differ, what is returned is of the one that differs most from the first.

        Raises:
            EngineError: as `generate`.
        """
        api, call = self._open_api, self._open_api.score(token_ids)
        async with self._deadline("score"):
            await self._replicas.choose("score")
            serving = self._replicas.serving
            answers = await asyncio.gather(*(self._post(replica, call) for replica in serving))
        scores = [api.scores(answer, token_ids) for answer in answers]
        return max(scores, key=lambda s: max(abs(a - b) for a, b in zip(s, scores[0], strict=True)))

    async def update_weights(self, weights: WeightSource, version: int) -> None:
        """Write the weights where the servers see them, and have all in service load them.

        Raises:
            EngineError: no replica took them.
        """
        self._current.clear()
        try:
            await self._update(weights, version)
        finally:
            self._current.set()

    async def _update(self, weights: WeightSource, version: int) -> None:
        began = time.monotonic()
        before, self._folder = self._folder, await asyncio.to_thread(self._write, weights, version)
        outcomes = await asyncio.gather(
            *(self._bring(replica, version) for replica in self._replicas.serving),
            return_exceptions=True,
        )
        errors = [error for error in outcomes if isinstance(error, BaseException)]
        if not self._replicas.serving:
            raise EngineError(
                f"weight update to version {version}: {errors or 'no server answers'}"
            )
        self.policy_version = version
        if before is not None:
            await asyncio.to_thread(shutil.rmtree, before, ignore_errors=True)
        self._sync_s = time.monotonic() - began

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
        if self._client is not None:
            await self._client.aclose()
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

    async def _ask(self, call: Call, session: str) -> Any:
        """Send a call to the session's replica; after a failure, to the next."""
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(ReplicaError),
            stop=stop_after_attempt(1 + self._config.retries),
            wait=wait_random_exponential(multiplier=0.1, max=LONGEST_PAUSE_S),
            reraise=True,
        )
        async for attempt in attempts:
            with attempt:
                return await self._post(await self._replicas.choose(session), call)
        raise AssertionError("unreachable")

    async def _post(self, replica: Replica, call: Call) -> Any:
        """Send one call to one replica; take it out of service if it fails."""
        assert self._client is not None
        try:
            answer = await self._client.post(replica.url + call.path, json=dict(call.body))
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            self._replicas.down(replica, why)
            raise ReplicaError(f"{replica.url}{call.path}: {why}") from error
        if answer.status_code == 429 or answer.status_code >= 500:
            why = f"{answer.status_code} {answer.text[:200]}"
            if answer.status_code >= 500:
                self._replicas.down(replica, why)
            raise ReplicaError(f"{replica.url}{call.path}: {why}")
        if answer.status_code >= 400:
            raise EngineError(f"{replica.url}{call.path}: {answer.status_code} {answer.text[:300]}")
        return answer.json() if answer.content[:1] in (b"{", b"[") else None

    async def _watch_health(self) -> None:
        while True:
            await asyncio.sleep(self._config.health_every_s)
            await asyncio.gather(*(self._check(replica) for replica in self._replicas.all))

    async def _check(self, replica: Replica) -> None:
        """Ask one replica how it is; bring it the weights it missed."""
        assert self._client is not None
        path = replica.url + self.health_path
        try:
            answer = await self._client.get(path, timeout=HEALTH_TIMEOUT_S)
            answer.raise_for_status()
            if replica.healthy:
                return
            if self._folder is not None and replica.version != self.policy_version:
                await self._bring(replica, self.policy_version)
        except (httpx.HTTPError, EngineError) as error:
            self._replicas.down(replica, str(error) or type(error).__name__)
            return
        self._replicas.up(replica)

    async def _bring(self, replica: Replica, version: int) -> None:
        """Have one replica load the current folder."""
        calls = self._open_api.update(str(self._folder), self._config.on_update)
        try:
            async with asyncio.timeout(self._config.update_timeout_s):
                for call in calls:
                    await self._post(replica, call)
        except (EngineError, TimeoutError) as error:
            # What it computes with now is not known: it stays out until an update succeeds.
            replica.version = None
            self._replicas.down(replica, f"weight update: {error or 'deadline passed'}")
            raise
        replica.version = version

    async def _served_model(self) -> str:
        assert self._client is not None
        replica = self._replicas.serving[0]
        answer = await self._client.get(replica.url + "/v1/models")
        if answer.status_code != 200 or not answer.json().get("data"):
            raise NotReadyError(f"{replica.url}/v1/models names no model; set engine.model")
        return str(answer.json()["data"][0]["id"])

    def _write(self, weights: WeightSource, version: int) -> Path:
        """Write the weights whole or not at all."""
        from safetensors.torch import save_file

        self._weight_dir.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".weights-", dir=self._weight_dir))
        partial.chmod(0o755)
        tensors = {name: tensor.contiguous() for name, tensor in weights.named_tensors()}
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        for number in itertools.count():
            target = self._weight_dir / f"weights-{version}-{number}"
            if not target.exists():
                return partial.rename(target)
        raise AssertionError("unreachable")
