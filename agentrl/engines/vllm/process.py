"""One `AsyncLLM` from its start to its end: what is in flight in it, and whether it still lives.

vLLM does not always tell: a call that was under way when the process died is never answered, and
neither is anything that a stopped process is asked.
"""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from agentrl.engines.in_flight import InFlight
from agentrl.engines.vllm.versions import engine_processes, was_rejected
from agentrl.errors import EngineError, RolloutError, boundary

DEATH_CHECK_S = 0.5
T = TypeVar("T")


class EngineLostError(EngineError):
    """The engine's process died or hangs; only another one helps."""


class EngineProcess:
    """An engine that runs. `lost` says what became of it, None while it is well."""

    def __init__(self, llm: Any) -> None:
        self.llm = llm
        self.requests = InFlight()
        self.lost: str | None = None
        self.asleep = False
        self._heard_at = time.monotonic()

    def heard(self) -> None:
        """Note a sign of life."""
        self._heard_at = time.monotonic()

    def silent_s(self) -> float:
        """Seconds since the last sign of life."""
        return time.monotonic() - self._heard_at

    def alive(self) -> bool:
        """Whether all of its processes run."""
        running = all(process.is_alive() for process in engine_processes(self.llm))
        return running and not self.llm.errored

    async def request(self, what: str, work: Coroutine[Any, Any, T]) -> T | None:
        """Await a request; None if the engine was given up meanwhile, or paused before it began.

        Raises:
            EngineLostError: the process died.
            EngineError: the request failed.
        """
        if not self.requests:
            self.heard()
        try:
            return await self.requests.run(self._told(what, work))
        except EngineError as error:
            told = error.__cause__
            if told is not None and was_rejected(told.__cause__):
                return None
            raise

    async def call(self, what: str, work: Coroutine[Any, Any, T], *, limit_s: float) -> T:
        """Await a call on the whole engine.

        Raises:
            EngineLostError: the process died, or the deadline passed.
            EngineError: the call failed.
        """
        task = asyncio.create_task(self._told(what, work))
        try:
            async with asyncio.timeout(limit_s):
                while not (await asyncio.wait([task], timeout=DEATH_CHECK_S))[0]:
                    if not self.alive():
                        raise EngineLostError(f"{what}: vLLM's process died")
        except TimeoutError:
            raise EngineLostError(f"{what}: vLLM did not finish within {limit_s:g} s") from None
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        self.heard()
        return task.result()

    async def _told(self, what: str, work: Coroutine[Any, Any, T]) -> T:
        """Tell the death of the process from other failures."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            with boundary(what):
                return await work
        except RolloutError as error:
            if isinstance(error.__cause__, EngineDeadError) or not self.alive():
                raise EngineLostError(f"{what}: vLLM's process died") from error
            raise EngineError(str(error)) from error
