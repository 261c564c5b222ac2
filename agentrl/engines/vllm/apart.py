"""vLLM in an environment of its own (`engine.python`): a server that we start, watch and end.

    ApartEngine --> a plain vLLM server of another Python   (started, and again when it dies)
        `-----> HttpEngine: tokens, scores and weights      (as to any running server)

A server that was started again gets the current weights before it answers, as every replica that
comes back does; requests wait for it meanwhile.
"""

import asyncio
import logging
import os
import socket
import subprocess
import tempfile
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

from typing_extensions import override

from agentrl.clients.client import HttpClient
from agentrl.config.engine import HttpEngineConfig, VllmEngineConfig
from agentrl.contracts.engine import Completion, Engine, Prompt, Sampling, WeightPublisher
from agentrl.engines.http.engine import HttpEngine
from agentrl.engines.in_flight import InFlight
from agentrl.engines.vllm.interpreter import check_python, end_server, kill_server, start_server
from agentrl.engines.vllm.launch import ModelSpec
from agentrl.errors import ConfigError, EngineError, InfraError, NotReadyError
from agentrl.waits import waiting

logger = logging.getLogger(__name__)

WATCH_EVERY_S = 0.5
T = TypeVar("T")


class ApartEngine(Engine):
    """Generates with a vLLM of another Python; call `start` first.

    Args:
        spec: the policy's configuration, type and device.
        config: how it is run; `python` names the interpreter.
        log_file: takes what the server prints; discarded when None.
    """

    def __init__(
        self, spec: ModelSpec, config: VllmEngineConfig, *, log_file: Path | None = None
    ) -> None:
        self._spec = spec
        self._config = config
        self._python = os.path.expanduser(config.python or "")
        self._log = log_file or Path(os.devnull)
        self._folder = tempfile.TemporaryDirectory(prefix="agentrl-vllm-")
        self._server: subprocess.Popen[bytes] | None = None
        self._http: HttpEngine | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._asked = InFlight()
        self._port = 0
        self._restarts = 0
        self._deaths = 0
        self.failure: str | None = None

    async def start(self) -> None:
        """Start the server, once. It generates after the first `update_weights`.

        Raises:
            ConfigError: `engine.python` is no Python, or on_update is `continue`.
            NotReadyError: it has no vLLM of a supported release, or the server does not come up.
        """
        if self._config.on_update == "continue":
            raise ConfigError(
                "engine.on_update: with engine.python, vLLM is asked over HTTP: expected `wait` "
                "or `abort`, got `continue`; use one of them, or leave engine.python out"
            )
        version = await asyncio.to_thread(check_python, self._python)
        logger.info("vLLM %s of %s", version, self._python)
        if self._spec.device != "cpu" and self._config.sleep:
            logger.warning("engine.sleep does nothing with engine.python: the server keeps its GPU")
        self._spec.config.save_pretrained(self._folder.name)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._launch()
        await self._await_server()
        self._http = HttpEngine(self._http_config())
        await self._http.start()
        self._watcher = asyncio.create_task(self._watch(), name="vllm-apart-watch")

    @override
    async def generate(self, prompt: Prompt, sampling: Sampling, *, session: str) -> Completion:
        done = await self._ask(self._open.generate(prompt, sampling, session=session))
        self._deaths = 0
        return done

    @override
    async def score(self, token_ids: Sequence[int]) -> list[list[float]]:
        return await self._ask(self._open.score(token_ids))

    @override
    async def update_weights(self, publisher: WeightPublisher) -> None:
        await self._ask(self._update(publisher))

    @override
    async def sleep(self) -> None:
        """Do nothing: the server keeps its memory."""

    @override
    async def wake(self) -> None:
        """Do nothing: the server kept its memory."""

    @override
    def drain_metrics(self) -> dict[str, float]:
        metrics = self._http.drain_metrics() if self._http is not None else {}
        return metrics | {"engine/restarts": float(self._restarts)}

    @override
    async def close(self) -> None:
        """End the server; requests in flight fail. May be called twice."""
        self.failure = "the engine was closed"
        self._asked.end()
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        if self._http is not None:
            await self._http.close()
        server, self._server = self._server, None
        if server is not None:
            await asyncio.to_thread(end_server, server)
        self._folder.cleanup()

    @property
    def _open(self) -> HttpEngine:
        if self._http is None:
            raise EngineError("the engine is not open; await start() first")
        return self._http

    async def _update(self, publisher: WeightPublisher) -> bool:
        await self._open.update_weights(publisher)
        return True

    async def _ask(self, work: Coroutine[Any, Any, T]) -> T:
        """Await what the server is asked, unless the engine is gone for good meanwhile.

        Raises:
            EngineError: it failed, or the engine is gone.
        """
        if self.failure is not None:
            work.close()
            raise EngineError(self.failure)
        done = await self._asked.run(work)
        if done is None:
            raise EngineError(self.failure or "the engine is gone")
        return done

    def _http_config(self) -> HttpEngineConfig:
        return HttpEngineConfig(
            type="http",
            urls=[self._url],
            model="policy",
            on_update="abort" if self._config.on_update == "abort" else "wait",
            request_timeout_s=self._config.request_timeout_s,
            update_timeout_s=self._config.update_timeout_s,
            health_every_s=1.0,
        )

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _launch(self) -> None:
        self._server = start_server(
            self._python, self._folder.name, self._port, self._spec, self._config, self._log
        )

    async def _await_server(self) -> None:
        """Wait until the server answers; end it when it does not.

        Raises:
            NotReadyError: it ended, or did not answer in time.
        """
        server, limit = self._server, self._config.start_timeout_s
        assert server is not None
        async with AsyncExitStack() as stack:
            client = HttpClient()
            stack.push_async_callback(client.close)
            wait = waiting(
                "engine vllm: start", "the run", remedy=f"see {self._log}", deadline_s=limit
            )
            stack.enter_context(wait)
            while wait.age_s < limit:
                if server.poll() is not None:
                    raise NotReadyError(
                        f"engine.python: {self._python}: vLLM's server ended with exit status "
                        f"{server.returncode} before it answered; see {self._log}"
                    )
                with suppress(InfraError):
                    await client.ask("GET", f"{self._url}/health", timeout_s=2.0)
                    return
                await asyncio.sleep(0.2)
        await asyncio.to_thread(kill_server, server)
        raise NotReadyError(
            f"engine.python: {self._python}: vLLM's server did not start within "
            f"engine.start_timeout_s={limit:g}; see {self._log}"
        )

    async def _watch(self) -> None:
        """Start the server again when it dies; the pool brings it the weights when it is back."""
        while self.failure is None:
            await asyncio.sleep(WATCH_EVERY_S)
            server = self._server
            if server is None or server.poll() is None:
                continue
            what = f"vLLM's server of {self._python} died with exit status {server.returncode}"
            self._deaths += 1
            if self._config.on_death == "stop":
                self.failure = f"{what}, and engine.on_death is `stop`; see {self._log}"
            elif self._deaths > self._config.max_restarts:
                self.failure = (
                    f"{what}, {self._deaths} times in a row (engine.max_restarts="
                    f"{self._config.max_restarts}); see {self._log}"
                )
            else:
                logger.warning("%s; starting another", what)
                self._restarts += 1
                await asyncio.to_thread(kill_server, server)
                self._launch()
        # Nobody else tells those who wait for a server that does not come back.
        self._asked.end()
