"""The engine of running servers: generation, scores and weight updates over a `ServerPool`.

    update_weights -> a folder of safetensors -> every replica: pause, load, drop caches, resume

While weights are updated no request is under way: each is answered by one version. A replica that
comes (back) gets the current weights before it serves.
"""

import asyncio
import contextlib
import itertools
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from agentrl.clients.border import TransientError
from agentrl.config.engine import HttpEngineConfig
from agentrl.contracts.engine import (
    Completion,
    Engine,
    Prompt,
    PublishedWeights,
    Sampling,
    WeightPublisher,
)
from agentrl.engines.http.api import ServerApi, SglangApi
from agentrl.engines.http.replicas import Replica
from agentrl.engines.http.serving import ServerPool, understood
from agentrl.engines.http.vllm_native import ServerFacts, choose_api
from agentrl.engines.tokens import token_list
from agentrl.errors import ConfigError, EngineError, NotReadyError

RETRY_S = 1.0


class HttpEngine(Engine):
    """Generates with one or several servers. Call `start` first.

    Args:
        config: where they are and what they speak.
        weight_dir: where weight updates are written, for both sides to see.
    """

    def __init__(self, config: HttpEngineConfig, *, weight_dir: Path | None = None) -> None:
        self.failure: str | None = None
        self._config = config
        self._pool = ServerPool(config, welcome=self._welcome)
        self._weight_dir = weight_dir
        self._own_dir: Path | None = None
        self._folder: Path | None = None
        self._api: ServerApi | None = None
        self._sync_s: float | None = None
        self._bringing = asyncio.Lock()

    async def start(self) -> None:
        """Find out who is there, and what their model is called.

        Raises:
            ConfigError: the key is not there, or a server's log-probabilities are not wanted.
            NotReadyError: no replica answers.
        """
        await self._pool.start()
        if self._config.api == "sglang":
            self._api = SglangApi()
            return
        try:
            model = self._config.model or await self._pool.served_model()
            for replica in reversed(self._pool.replicas.serving):
                info = await self._pool.look(replica, "/server_info?config_format=json")
                routes = await self._pool.look(replica, "/openapi.json")
                self._api = choose_api(model, ServerFacts.read(info, routes), url=replica.url)
        except (NotReadyError, ConfigError):
            await self.close()
            raise

    async def add(self, url: str) -> None:
        """Take in another server; it is brought the current weights before it serves.

        Raises:
            ConfigError: it is in use already.
            NotReadyError: it does not answer, or does not take the weights.
        """
        await self._pool.add(url)

    async def remove(self, url: str) -> None:
        """Let go of a server when it has answered what it was asked; it stays up.

        Raises:
            ConfigError: it is not in use, or the last one.
        """
        await self._pool.remove(url)

    @override
    async def generate(self, prompt: Prompt, sampling: Sampling, *, session: str) -> Completion:
        """Complete one prompt on the session's replica, or on another if that one fails.

        Raises:
            EngineError: the deadline passed, or every attempt failed.
        """
        api = self._open_api
        call = api.generate(token_list(prompt, session), sampling)
        async with self._pool.deadline(f"request of {session}"):
            while True:
                answer, version = await self._pool.ask(call, session)
                with understood(answer):
                    completion = api.completion(answer, version)
                # None: the server aborted it, and the turn begins anew.
                if completion is not None:
                    return completion

    @override
    async def score(self, token_ids: Sequence[int]) -> list[list[float]]:
        """Return every serving replica's log-probabilities of every token but the first.

        Raises:
            EngineError: as `generate`.
        """
        api, call = self._open_api, self._open_api.score(token_ids)
        answers: list[Any] = []
        async with self._pool.deadline("score"):
            while not answers:
                await self._pool.replicas.choose("score")
                serving = self._pool.replicas.serving
                tried = await asyncio.gather(
                    *(self._pool.request(replica, call) for replica in serving),
                    return_exceptions=True,
                )
                for outcome in tried:
                    if isinstance(outcome, BaseException) and not isinstance(
                        outcome, TransientError
                    ):
                        raise outcome
                answers = [one for one in tried if not isinstance(one, BaseException | None)]
                if not answers:
                    await asyncio.sleep(RETRY_S)
        with understood(answers):
            return [api.scores(answer, token_ids) for answer in answers]

    @override
    async def update_weights(self, publisher: WeightPublisher) -> None:
        """Write the weights where the servers see them, and have all in service load them.

        Raises:
            EngineError: no replica took them.
        """
        began = time.monotonic()
        try:
            async with publisher.open() as weights:
                version = weights.version
                folder = await asyncio.to_thread(self._write, weights)
        except OSError as error:
            raise EngineError(f"engine.weight_dir: {error}") from error
        await self._await_replica()
        async with self._bringing:
            self._pool.open.clear()
            try:
                await self._bring_all(folder, version)
            finally:
                self._pool.open.set()
        self._sync_s = time.monotonic() - began

    @override
    async def sleep(self) -> None:
        return None

    @override
    async def wake(self) -> None:
        return None

    @override
    def drain_metrics(self) -> dict[str, float]:
        metrics = {"engine/replicas": float(len(self._pool.replicas.serving))}
        if self._sync_s is not None:
            metrics["engine/sync_s"] = self._sync_s
            self._sync_s = None
        return metrics

    @override
    async def close(self) -> None:
        await self._pool.close()
        for folder in (self._folder, self._own_dir):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def _open_api(self) -> ServerApi:
        if self._api is None:
            raise EngineError("the engine is not open; await start() first")
        return self._api

    async def _await_replica(self) -> None:
        """Wait for a server that restarts, as long as an update may take."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.update_timeout_s):
                await self._pool.replicas.choose("weights")

    async def _bring_all(self, folder: Path, version: int) -> None:
        replicas = self._pool.replicas
        before, self._folder = self._folder, folder
        outcomes = await asyncio.gather(
            *(self._bring(replica) for replica in replicas.serving), return_exceptions=True
        )
        for outcome in outcomes:
            if outcome is not None and not isinstance(outcome, EngineError | TimeoutError):
                raise outcome
        if not replicas.serving:
            raise EngineError(
                f"weight update to version {version}: no server took it "
                f"({replicas.troubles()}); {self._open_api.update_needs}"
            )
        self._pool.version = version
        if before is not None:
            await asyncio.to_thread(shutil.rmtree, before, ignore_errors=True)

    async def _welcome(self, replica: Replica) -> None:
        """Bring a replica the weights that it missed."""
        async with self._bringing:
            if self._folder is not None:
                await self._bring(replica)

    async def _bring(self, replica: Replica) -> None:
        """Have one replica load the current folder."""
        calls = self._open_api.update(str(self._folder))
        try:
            async with asyncio.timeout(self._config.update_timeout_s):
                if self._config.on_update == "abort":
                    replica.requests.end()
                await replica.requests.settle()
                for call in calls:
                    await self._pool.command(replica, call)
        except (EngineError, TimeoutError) as error:
            # What it computes with now is not known: it stays out until an update succeeds.
            self._pool.replicas.down(replica, f"weight update: {error or 'deadline passed'}")
            replica.requests.end()
            raise

    def _write(self, weights: PublishedWeights) -> Path:
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
        # Under every name: vLLM on a CPU keeps a tied head's old values unless it is sent it too.
        tensors |= {again: tensors[name].clone() for again, name in weights.tied_names().items()}
        try:
            save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        except (SafetensorError, OSError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise OSError(f"{self._weight_dir}: {error}") from error
        for number in itertools.count():
            target = self._weight_dir / f"weights-{weights.version}-{number}"
            if not target.exists():
                return partial.rename(target)
        raise AssertionError("unreachable")
