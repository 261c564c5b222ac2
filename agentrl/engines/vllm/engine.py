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
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from typing_extensions import override

from agentrl.config.engine import VllmEngineConfig
from agentrl.contracts.engine import (
    Completion,
    Engine,
    Prompt,
    PublishedWeights,
    Sampling,
    WeightPublisher,
)
from agentrl.engines.tokens import token_list
from agentrl.engines.vllm.launch import (
    ModelSpec,
    end_engine,
    kill_engine,
    start_engine,
)
from agentrl.engines.vllm.metrics import EngineMeter
from agentrl.engines.vllm.process import EngineLostError, EngineProcess
from agentrl.engines.vllm.requests import Answer, read_scores, run_request
from agentrl.engines.vllm.transfer import free_cached_memory, send_weights
from agentrl.errors import AgentRLError, EngineError

logger = logging.getLogger(__name__)

WATCH_EVERY_S = 1.0
T = TypeVar("T")
_PAUSE_MODES = {"wait": "wait", "abort": "abort", "continue": "keep"}


class VllmEngine(Engine):
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
        self._process: EngineProcess | None = None
        self._publisher: WeightPublisher | None = None
        self._numbers = itertools.count()
        self._ready = asyncio.Event()
        # Not set while an update has the engine paused.
        self._taking = asyncio.Event()
        self._taking.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._updating = False
        self._deaths = 0
        self.failure: str | None = None
        self._meter = EngineMeter(cuda=spec.device != "cpu")

    async def start(self) -> None:
        """Start the process, once. It generates after the first `update_weights`.

        Raises:
            ConfigError: vLLM does not take the arguments.
            NotReadyError: it is not installed, of another release, or does not come up.
        """
        await self._launch()
        self._in_background(self._watch(), "vllm-watch")
        if self._config.sleep and self._spec.device == "cpu":
            logger.info("engine.sleep does nothing on a CPU: there is no device memory to free")

    @override
    async def generate(self, prompt: Prompt, sampling: Sampling, *, session: str) -> Completion:
        """Complete one prompt; the session's earlier turns are served from the prefix cache.

        A seed is honoured on a GPU, as far as the batch's shape lets it; on a CPU it is not.

        Raises:
            EngineError: the deadline passed, the prompt does not fit, or the engine is gone.
        """
        prompt_ids = token_list(prompt, session)
        room = self._spec.max_tokens - len(prompt_ids)
        if not prompt_ids or room < 1:
            raise EngineError(
                f"request of {session}: expected 1 to {self._spec.max_tokens - 1} prompt tokens, "
                f"got {len(prompt_ids)}; lower rollout.max_context_tokens, or raise "
                "engine.max_tokens"
            )
        from vllm.sampling_params import RequestOutputKind, SamplingParams

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
            output_kind=RequestOutputKind.DELTA,
        )
        answer = await self._request(prompt_ids, parameters, session)
        self._meter.count(session, prompt_ids, answer.cached_tokens)
        return answer.completion

    @override
    async def score(self, token_ids: Sequence[int]) -> list[list[float]]:
        """Return the log-probability of every token but the first, given those before it.

        Raises:
            EngineError: as `generate`.
        """
        from vllm.sampling_params import SamplingParams

        parameters = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        answer = await self._request(list(token_ids), parameters, "score")
        return [read_scores(answer.raw, token_ids)]

    @override
    async def update_weights(self, publisher: WeightPublisher) -> None:
        """Take the published weights, as `on_update` says of the requests in flight.

        A dead engine is started first.

        Raises:
            EngineError: the engine refused the weights, or died and is not to be restarted.
        """
        self._publisher, self._updating = publisher, True
        began = time.monotonic()
        try:
            async with publisher.open() as weights:
                num_bytes = await self._update(weights)
        except (AgentRLError, OSError) as error:
            raise EngineError(str(error)) from error
        finally:
            self._updating = False
        self._meter.synced(time.monotonic() - began, num_bytes)
        self._ready.set()
        logger.debug("policy version %d, %d bytes", self.policy_version, num_bytes)

    @override
    async def sleep(self) -> None:
        """Free the device's memory: weights and key-value cache. On a CPU there is none to free.

        Raises:
            EngineError: the engine refused.
        """
        process = self._running
        if not self._config.sleep or self._spec.device == "cpu" or process.asleep or process.lost:
            return
        with self._meter.measured("sleep"):
            # Level 2 discards the weights: the next update brings them all.
            await self._call(process, "sleep", process.llm.sleep(level=2))
        process.asleep = True

    @override
    async def wake(self) -> None:
        """Take the weights' memory back; the cache's follows when new weights have come.

        Raises:
            EngineError: the engine refused, as when the device's memory is full.
        """
        process = self._running
        if not process.asleep or process.lost:
            return
        free_cached_memory()
        with self._meter.measured("wake"):
            await self._call(process, "wake", process.llm.wake_up(tags=["weights"]))

    @override
    async def close(self) -> None:
        """End the process; requests in flight fail. May be called twice."""
        self.failure = "the engine was closed"
        self._ready.set()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        process, self._process = self._process, None
        if process is not None:
            process.requests.end()
            await asyncio.to_thread(end_engine, process.llm)

    @override
    def drain_metrics(self) -> dict[str, float]:
        return self._meter.drain()

    async def _request(self, prompt_ids: list[int], parameters: Any, session: str) -> Answer:
        """Run one request to its end, again if the engine dies or an update aborts it."""
        what, limit = f"request of {session}", self._config.request_timeout_s
        try:
            async with asyncio.timeout(limit):
                while True:
                    await self._ready.wait()
                    await self._taking.wait()
                    if self.failure is not None:
                        raise EngineError(f"{what}: {self.failure}")
                    process = self._running
                    work = run_request(
                        process.llm,
                        prompt_ids,
                        parameters,
                        f"{session}/{next(self._numbers)}",
                        version=lambda: self.policy_version,
                        heard=process.heard,
                    )
                    try:
                        answer = await process.request(what, work)
                    except EngineLostError:
                        self._lose(process, "died")
                        continue
                    if answer is not None:
                        self._deaths = 0
                        return answer
        except TimeoutError:
            raise EngineError(
                f"{what}: no answer within engine.request_timeout_s={limit:g}"
            ) from None

    @property
    def _running(self) -> EngineProcess:
        if self._process is None:
            raise EngineError("the engine is not open; await start() first")
        return self._process

    def _seed(self, sampling: Sampling) -> int | None:
        # On a CPU, vLLM dies of a seeded request whose prompt it prefills in pieces.
        if sampling.seed is None or self._spec.device == "cpu":
            return None
        return sampling.seed % 2**63

    async def _watch(self) -> None:
        """Notice a process that dies while nobody asks it, or that hangs."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            limit = self._config.hang_timeout_s
            process = self._process
            if process is None or process.lost or self._updating or not self._ready.is_set():
                continue
            if not process.alive():
                self._lose(process, "died")
            elif process.requests and process.silent_s() > limit:
                self._lose(process, f"wrote nothing for engine.hang_timeout_s={limit:g}")

    def _lose(self, process: EngineProcess, what: str) -> None:
        """Give a process up, once; what it was asked waits for the next one."""
        if process is not self._process or process.lost:
            return
        process.lost = what
        self._ready.clear()
        process.requests.end()
        self._in_background(self._recover(process), "vllm-restart")

    async def _recover(self, lost: EngineProcess) -> None:
        assert self._publisher is not None
        try:
            # Opening waits for an update in progress, which replaces a lost process itself.
            async with self._publisher.open() as weights:
                if self._process is not lost:
                    return
                await self._restart(weights)
        except (AgentRLError, OSError) as error:
            self.failure = str(error)
        self._ready.set()

    async def _update(self, weights: PublishedWeights) -> int:
        process = self._running
        if not process.lost and process.alive():
            try:
                return await self._sync(weights)
            except EngineLostError as error:
                process.lost = f"was lost ({error})"
        return await self._restart(weights)

    async def _restart(self, weights: PublishedWeights) -> int:
        """Replace the process until one takes the weights; returns their bytes."""
        while True:
            process = self._running
            process.lost = process.lost or "died"
            self._ready.clear()
            self._check_restarts(process.lost)
            logger.warning("vLLM's process %s; starting another", process.lost)
            self._meter.restarts += 1
            process.requests.end()
            await asyncio.to_thread(kill_engine, process.llm)
            if self._spec.device != "cpu":
                free_cached_memory()
            await self._launch()
            try:
                return await self._sync(weights)
            except EngineLostError as error:
                self._running.lost = f"was lost ({error})"

    async def _launch(self) -> None:
        llm = await start_engine(self._spec, self._config, log_file=self._log_file)
        self._process = EngineProcess(llm)

    def _check_restarts(self, what: str) -> None:
        self._deaths += 1
        where = f"; see {self._log_file}" if self._log_file else ""
        if self._config.on_death == "stop":
            raise EngineError(f"vLLM's process {what}, and engine.on_death is `stop`{where}")
        if self._deaths > self._config.max_restarts:
            raise EngineError(
                f"vLLM's process {what}, {self._deaths} times in a row "
                f"(engine.max_restarts={self._config.max_restarts}){where}"
            )

    async def _call(self, process: EngineProcess, what: str, work: Coroutine[Any, Any, T]) -> None:
        """Await a call; a process that it shows to be lost is left to the next update."""
        try:
            await process.call(what, work, limit_s=self._config.update_timeout_s)
        except EngineLostError as error:
            self._lose(process, f"was lost ({error})")

    async def _sync(self, weights: PublishedWeights) -> int:
        process = self._running
        what = f"weight update to version {weights.version}"
        work = self._transfer(process, weights)
        # A release may refuse what it is asked while it is paused; what goes on, it queues.
        if self._config.on_update != "continue":
            self._taking.clear()
        try:
            return await process.call(what, work, limit_s=self._config.update_timeout_s)
        finally:
            self._taking.set()

    async def _transfer(self, process: EngineProcess, weights: PublishedWeights) -> int:
        """Pause, send, drop what old weights computed, go on."""
        llm, mode = process.llm, _PAUSE_MODES[self._config.on_update]
        if not process.asleep:
            await llm.pause_generation(mode=mode, clear_cache=mode != "keep")
        num_bytes = await send_weights(llm, weights, device=self._spec.device)
        if process.asleep:
            await llm.wake_up(tags=["kv_cache"])
            process.asleep = False
        # Requests that go on compute their keys and values again, under the new weights.
        await llm.reset_prefix_cache(reset_running_requests=mode == "keep")
        self.policy_version = weights.version
        await llm.resume_generation()
        return num_bytes

    def _in_background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
