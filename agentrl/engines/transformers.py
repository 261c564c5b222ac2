"""The embedded engine: continuous batching over a transformers model in this process.

The module is shared with the trainer, so weights need no transfer. `generate` calls queue rows;
while there are any, one task drives a `DecodeBatch` on one worker thread, so that forward passes
never block the event loop. The task exists only while there is work and is awaited by `close`.

Rollouts and updates must not overlap: await `sleep()` before the module's weights change.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Literal

from transformers import PreTrainedModel
from typing_extensions import override

from agentrl.contracts.engine import Completion, Engine, Prompt, Sampling, WeightPublisher
from agentrl.engines.decode import DecodeBatch, EngineStats, Row
from agentrl.engines.kv_cache import check_cacheable
from agentrl.engines.score import evaluating, score_tokens
from agentrl.engines.tokens import completion, token_list
from agentrl.engines.weights import copy_weights
from agentrl.errors import EngineError, RolloutError, boundary

logger = logging.getLogger(__name__)


class TransformersEngine(Engine):
    """Generates with a causal language model of transformers.

    Args:
        model: any model with a standard key-value cache, on the device of its choice.
        max_batch: sequences that decode together; further requests wait.
        max_prefill_tokens: padded prompt tokens of one forward pass.
        deterministic: compute every request alone, in order of arrival. Its result is then
            bit-identical whatever else runs; otherwise a seed fixes the random draws, but the
            batch's shape may change the last bits of the logits.

    Raises:
        ConfigError: the model keeps a state other than keys and values.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        max_batch: int = 64,
        max_prefill_tokens: int = 16384,
        deterministic: bool = False,
    ) -> None:
        self.policy_version = 0
        self.failure: str | None = None
        self._model = model
        self._max_batch = 1 if deterministic else max_batch
        self._batch = DecodeBatch(model, max_prefill_tokens=max_prefill_tokens)
        self._waiting: list[Row] = []
        self._futures: dict[Row, asyncio.Future[None]] = {}
        self._runner: asyncio.Task[None] | None = None
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._closed = False
        config = model.config.get_text_config()
        check_cacheable(config)
        self._vocab_size: int = model.get_input_embeddings().weight.shape[0]
        self._max_positions: int | None = getattr(config, "max_position_embeddings", None)

    @property
    def stats(self) -> EngineStats:
        """A copy of the counters since the engine was made."""
        return replace(self._batch.stats)

    @override
    async def generate(self, prompt: Prompt, sampling: Sampling, *, session: str) -> Completion:
        """Complete one prompt, sharing decode steps with the other requests in flight.

        Generation also ends, with finish reason `length`, at the model's last position.

        Raises:
            EngineError: the prompt cannot be completed by this model, the forward pass failed,
                or the engine is closed.
        """
        row = self._admit(token_list(prompt, session), sampling, session)
        future = asyncio.get_running_loop().create_future()
        self._futures[row] = future
        self._waiting.append(row)
        self._batch.interrupted = True
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run(), name="transformers-engine")
        try:
            await future
        finally:
            del self._futures[row]
            if not row.done:
                row.abandoned = True
                self._batch.interrupted = True
        reason: Literal["stop", "length"] = "stop" if row.stopped else "length"
        return completion(row.token_ids, row.logprobs, row.policy_version, reason)

    @override
    async def score(self, token_ids: Sequence[int]) -> list[list[float]]:
        """Return the log-probability of every token but the first, given those before it.

        Raises:
            EngineError: the forward pass failed.
        """
        with boundary(f"the forward pass of {type(self._model).__name__}"):
            loop = asyncio.get_running_loop()
            work = partial(score_tokens, self._model, token_ids)
            return [await loop.run_in_executor(self._worker, work)]

    @override
    async def update_weights(self, publisher: WeightPublisher) -> None:
        """Take the weights; tensors that the engine's own module holds are not copied.

        Raises:
            EngineError: requests are in flight, or names or shapes do not match.
        """
        async with publisher.open() as weights:
            version = weights.version
            if self._futures:
                raise EngineError(
                    f"weight update to version {version}: {len(self._futures)} requests are in "
                    "flight; await or cancel them first"
                )
            with boundary(f"weight update to version {version}"):
                loop = asyncio.get_running_loop()
                num_copied = await loop.run_in_executor(
                    self._worker, copy_weights, weights, self._model
                )
        self.policy_version = version
        logger.debug("policy version %d, %d tensors copied", version, num_copied)

    @override
    async def sleep(self) -> None:
        """Wait until no forward pass is running. There is no memory to free between requests."""
        while self._runner is not None and not self._runner.done():
            await asyncio.wait([self._runner])

    @override
    async def wake(self) -> None:
        return None

    @override
    def drain_metrics(self) -> dict[str, float]:
        return {}

    @override
    async def close(self) -> None:
        """End the engine; requests in flight fail. May be called twice."""
        self._closed = True
        self._fail_all("the engine was closed while the request was in flight")
        await self.sleep()
        self._worker.shutdown()

    def _admit(self, prompt_ids: list[int], sampling: Sampling, session: str) -> Row:
        """Check a request and make its row."""
        if self._closed:
            raise EngineError(f"request of {session}: the engine is closed; make a new one")
        if not prompt_ids:
            raise EngineError(f"request of {session}: expected at least one prompt token, got none")
        if not 0 <= min(prompt_ids) <= max(prompt_ids) < self._vocab_size:
            raise EngineError(
                f"request of {session}: token ids should lie in [0, {self._vocab_size}), got "
                f"{min(prompt_ids)} to {max(prompt_ids)}; the tokenizer is not this model's"
            )
        limit = sampling.max_tokens
        if self._max_positions is not None:
            limit = min(limit, self._max_positions - len(prompt_ids))
        if limit < 1:
            raise EngineError(
                f"request of {session}: {len(prompt_ids)} prompt tokens leave no room for an "
                f"answer in the model's {self._max_positions} positions; "
                "lower rollout.max_context_tokens or rollout.max_response_tokens"
            )
        return Row(
            prompt_ids=list(prompt_ids),
            sampling=sampling,
            limit=limit,
            policy_version=self.policy_version,
            draws=random.Random(sampling.seed),
        )

    async def _run(self) -> None:
        """Drive the batch while there are rows; the only place that hands it to the thread."""
        loop = asyncio.get_running_loop()
        what = f"the forward pass of {type(self._model).__name__}"
        try:
            with evaluating(self._model):
                while self._waiting or self._batch.rows:
                    joining = self._take_joiners()
                    try:
                        with boundary(what):
                            finished = await loop.run_in_executor(
                                self._worker, self._batch.advance, joining
                            )
                    except RolloutError as error:
                        self._batch.clear()
                        self._fail_all(str(error), cause=error)
                        continue
                    for row in finished:
                        if row in self._futures and not self._futures[row].done():
                            self._futures[row].set_result(None)
        finally:
            # There are requests left only when the event loop ends under them.
            self._fail_all("the engine's task was cancelled")

    def _take_joiners(self) -> list[Row]:
        """Return the waiting requests that the next round admits, first come first served."""
        self._batch.interrupted = False
        waiting = [row for row in self._waiting if not row.abandoned]
        room = self._max_batch - sum(not row.done for row in self._batch.rows)
        self._waiting = waiting[room:]
        return waiting[:room]

    def _fail_all(self, message: str, *, cause: BaseException | None = None) -> None:
        """Fail every request in flight, running or waiting."""
        self._waiting = []
        self._batch.interrupted = True
        for row, future in self._futures.items():
            row.abandoned = True
            if not future.done():
                error = EngineError(message)
                error.__cause__ = cause
                future.set_exception(error)
