"""vLLM as an engine of the rollout: it outlives updates, and survives the death of its process.

    generate --> AsyncLLM (a process of its own) --> tokens, each with its weights' version
    update_weights --> pause > send > drop caches of old weights > resume

Requests in flight during an update wait, begin anew or go on, as `on_update` says. A process that
dies or hangs is replaced, gets the weights of the last update, and every request that it held is
sent again; so an episode only ever sees a slower turn.
"""

import asyncio
import itertools
import logging
import time
from pathlib import Path
from typing import Any

from agentrl.config.engine import VllmEngineConfig
from agentrl.errors import EngineError, NotReadyError, RolloutError, boundary
from agentrl.rollout.engine import Completion, Sampling, WeightSource
from agentrl.rollout.engines.vllm.launch import (
    ModelSpec,
    end_engine,
    kill_engine,
    start_engine,
)
from agentrl.rollout.engines.vllm.metrics import EngineMeter
from agentrl.rollout.engines.vllm.requests import Aborted, Answer, read_scores, run_request
from agentrl.rollout.engines.vllm.transfer import send_weights
from agentrl.rollout.engines.vllm.versions import engine_processes

logger = logging.getLogger(__name__)

DEATH_CHECK_S = 0.5
_PAUSE_MODES = {"wait": "wait", "abort": "abort", "continue": "keep"}


class VllmEngine:
    """Generates with vLLM; make it with `start`.

    Args:
        spec: the policy's configuration, type and device.
        config: how it is run.
        log_file: takes what vLLM logs and prints; discarded when None.
    """

    def __init__(
        self, spec: ModelSpec, config: VllmEngineConfig, *, log_file: Path | None = None
    ) -> None:
        self.policy_version = 0
        self._spec = spec
        self._config = config
        self._log_file = log_file
        self._engine: Any = None
        self._weights: WeightSource | None = None
        self._numbers = itertools.count()
        self._ready = asyncio.Event()
        self._restarting: asyncio.Task[None] | None = None
        self._deaths = 0
        self._asleep = False
        self._closed = False
        self.failure: str | None = None
        self._heard_at = time.monotonic()
        self._meter = EngineMeter(cuda=spec.device != "cpu")

    async def start(self) -> None:
        """Start the process. It generates after the first `update_weights`.

        Raises:
            ConfigError: vLLM does not take the arguments.
            NotReadyError: it is not installed, of another release, or does not come up.
        """
        self._engine = await start_engine(self._spec, self._config, log_file=self._log_file)
        if self._config.sleep and self._spec.device == "cpu":
            logger.info("engine.sleep does nothing on a CPU: there is no device memory to free")

    async def generate(
        self, prompt_ids: list[int], sampling: Sampling, *, session: str
    ) -> Completion:
        """Complete one prompt; the session's earlier turns are served from the prefix cache.

        A seed is honoured on a GPU, as far as the batch's shape lets it; on a CPU it is not.

        Raises:
            EngineError: the deadline passed, the prompt does not fit, or the engine is gone.
        """
        room = self._spec.max_tokens - len(prompt_ids)
        if not prompt_ids or room < 1:
            raise EngineError(
                f"request of {session}: expected 1 to {self._spec.max_tokens - 1} prompt tokens, "
                f"got {len(prompt_ids)}; lower rollout.max_context_tokens, or raise "
                "engine.max_tokens"
            )
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        keeps = self._config.on_update == "continue"
        parameters = SamplingParams(
            max_tokens=min(sampling.max_tokens, room),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=self._seed(sampling),
            stop_token_ids=list(sampling.stop_token_ids),
            # Only the template's stop tokens end a turn; the model's own may differ from them.
            ignore_eos=True,
            logprobs=0,
            detokenize=False,
            # A token's version is the one in force when it arrives, so arrivals must be seen.
            output_kind=RequestOutputKind.DELTA if keeps else RequestOutputKind.FINAL_ONLY,
        )
        answer = await self._request(prompt_ids, parameters, session)
        self._meter.count(session, prompt_ids, answer.cached_tokens)
        return answer.completion

    async def score(self, token_ids: list[int]) -> list[list[float]]:
        """Return the log-probability of every token but the first, given those before it.

        Raises:
            EngineError: as `generate`.
        """
        from vllm.sampling_params import SamplingParams

        parameters = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        answer = await self._request(token_ids, parameters, "score")
        return [read_scores(answer.raw, token_ids)]

    async def update_weights(self, weights: WeightSource, version: int) -> None:
        """Take the trainer's weights, as `on_update` says of the requests in flight.

        A dead engine is started first.

        Raises:
            EngineError: the engine refused the weights, or died and is not to be restarted.
        """
        self._weights = weights
        if self._restarting is not None:
            # It waits for the weights to be still, which they are when this returns.
            self._restarting.cancel()
            await asyncio.wait([self._restarting])
        if self._engine is None or self._engine.errored:
            await self._replace()
        began = time.monotonic()
        try:
            num_bytes = await self._sync(version)
        except RolloutError as error:
            if not self._died(error):
                raise EngineError(str(error)) from error
            self._check_restarts("died during a weight update")
            await self._replace()
            num_bytes = await self._sync(version)
        self._meter.synced(time.monotonic() - began, num_bytes)
        self._ready.set()
        logger.debug("policy version %d, %d bytes", version, num_bytes)

    async def sleep(self) -> None:
        """Free the device's memory: weights and key-value cache. On a CPU there is none to free."""
        if not self._config.sleep or self._spec.device == "cpu" or self._asleep:
            return
        with self._meter.measured("sleep"):
            # Level 2 discards the weights: the next update brings them all.
            await self._engine.sleep(level=2)
        self._asleep = True

    async def wake(self) -> None:
        """Take the weights' memory back; the cache's follows when new weights have come."""
        if self._asleep:
            with self._meter.measured("wake"):
                await self._engine.wake_up(tags=["weights"])

    async def close(self) -> None:
        """End the process; requests in flight fail. May be called twice."""
        self._closed = True
        self.failure = "the engine was closed"
        self._ready.set()
        if self._restarting is not None:
            self._restarting.cancel()
            await asyncio.wait([self._restarting])
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(end_engine, engine)

    def drain_metrics(self) -> dict[str, float]:
        """Return what was measured since the last call."""
        return self._meter.drain()

    async def _request(self, prompt_ids: list[int], parameters: Any, session: str) -> Answer:
        """Run one request to its end, again if the engine dies or an update aborts it."""
        try:
            async with asyncio.timeout(self._config.request_timeout_s):
                while True:
                    await self._ready.wait()
                    if self.failure is not None:
                        raise EngineError(f"request of {session}: {self.failure}")
                    engine = self._engine
                    try:
                        with boundary(f"request of {session}"):
                            answer = await run_request(
                                engine,
                                prompt_ids,
                                parameters,
                                f"{session}/{next(self._numbers)}",
                                version=lambda: self.policy_version,
                            )
                    except Aborted:
                        continue
                    except RolloutError as error:
                        if not self._died(error):
                            raise EngineError(str(error)) from error
                        self._lost(engine, "died")
                        continue
                    self._heard_at = time.monotonic()
                    self._deaths = 0
                    return answer
        except TimeoutError:
            limit = self._config.request_timeout_s
            if time.monotonic() - self._heard_at > limit and self._engine is not None:
                self._lost(self._engine, f"answered nothing for {limit:g} s")
            raise EngineError(
                f"request of {session}: no answer within engine.request_timeout_s={limit:g}"
            ) from None

    def _seed(self, sampling: Sampling) -> int | None:
        # On a CPU, vLLM dies of a seeded request whose prompt it prefills in pieces.
        if sampling.seed is None or self._spec.device == "cpu":
            return None
        return sampling.seed % 2**63

    def _died(self, error: RolloutError) -> bool:
        from vllm.v1.engine.exceptions import EngineDeadError

        lost = (
            self._engine is None
            or self._engine.errored
            or any(not process.is_alive() for process in engine_processes(self._engine))
        )
        return lost or isinstance(error.__cause__, EngineDeadError)

    def _lost(self, engine: Any, what: str) -> None:
        """Start a replacement, once, for an engine that died or hangs."""
        if self._closed or engine is not self._engine or self._restarting is not None:
            return
        self._ready.clear()
        self._restarting = asyncio.create_task(self._recover(what), name="vllm-restart")

    async def _recover(self, what: str) -> None:
        try:
            self._check_restarts(what)
            logger.warning("vLLM's process %s; starting another", what)
            assert self._weights is not None
            # An update in progress would be caught half-way; its own sync finds the new engine.
            async with self._weights.lock:
                await self._replace()
                await self._sync(self.policy_version)
        except (RolloutError, NotReadyError) as error:
            self.failure = str(error)
        finally:
            self._restarting = None
        self._ready.set()

    def _check_restarts(self, what: str) -> None:
        self._deaths += 1
        where = f"; see {self._log_file}" if self._log_file else ""
        if self._config.on_death == "stop":
            raise EngineError(f"vLLM's process {what}, and engine.on_death is `stop`{where}")
        if self._deaths > self._config.max_restarts:
            raise EngineError(
                f"vLLM's process {what} {self._deaths} times in a row "
                f"(engine.max_restarts={self._config.max_restarts}){where}"
            )

    async def _replace(self) -> None:
        if self._engine is not None:
            self._meter.restarts += 1
            await asyncio.to_thread(kill_engine, self._engine)
        self._asleep = False
        self._heard_at = time.monotonic()
        await self.start()

    async def _sync(self, version: int) -> int:
        """Bring the weights; notice if the process dies meanwhile."""
        engine = self._engine
        with boundary(f"weight update to version {version}"):
            async with asyncio.timeout(self._config.update_timeout_s):
                work = asyncio.create_task(self._transfer(engine))
                try:
                    # vLLM answers a call that was under way when its process died never.
                    while not (await asyncio.wait([work], timeout=DEATH_CHECK_S))[0]:
                        if any(not process.is_alive() for process in engine_processes(engine)):
                            raise EngineError(f"weight update to version {version}: vLLM died")
                finally:
                    if not work.done():
                        work.cancel()
                        await asyncio.wait([work])
                num_bytes = work.result()
                self.policy_version = version
                await engine.resume_generation()
        return num_bytes

    async def _transfer(self, engine: Any) -> int:
        """Pause, send, drop what old weights computed."""
        assert self._weights is not None
        mode = _PAUSE_MODES[self._config.on_update]
        if not self._asleep:
            await engine.pause_generation(mode=mode, clear_cache=mode != "keep")
        num_bytes = await send_weights(engine, self._weights, device=self._spec.device)
        if self._asleep:
            await engine.wake_up(tags=["kv_cache"])
            self._asleep = False
        # Requests that go on compute their keys and values again, under the new weights.
        await engine.reset_prefix_cache(reset_running_requests=mode == "keep")
        return num_bytes
