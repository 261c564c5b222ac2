"""Whose the weights are: the trainer writes them, then publishes a version, then engines read it.

    updating: engine sleeps > the trainer writes > version + 1      publish: wake > update > probe

A publisher is the one owner. What it opens does not change while it is open, so an engine that
dies and starts again asks the publisher, and never gets half of an update.
"""

from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from agentrl.contracts.engine import Engine
from agentrl.engines.parity import ParityProbe
from agentrl.engines.weights import LiveWeights
from agentrl.runs.run import Run
from agentrl.waits import bounded

T = TypeVar("T")

DEADLINE_S = 3600.0
"""Of each part of a sync, its engine's own time-outs and restarts included."""
_REMEDY = "look at the engine's process or server: it may be stopped, swapping or out of memory"


@dataclass
class WeightSync:
    """Keeps one engine's weights in step with the trainer's; `parity` is what was measured."""

    run: Run
    engine: Engine
    weights: LiveWeights
    probe: ParityProbe
    pause: bool
    deadline_s: float = DEADLINE_S
    parity: dict[str, float] = field(default_factory=dict)

    @asynccontextmanager
    async def updating(self, version: int) -> AsyncIterator[None]:
        """Let the trainer change the weights; strictly on-policy, the engine sleeps meanwhile.

        Raises:
            RunError: the engine failed; a checkpoint has been written.
        """
        async with AsyncExitStack() as stack:
            free = stack.enter_async_context(self.weights.writing(version))
            await self._needs(free, "the engine to let go of the weights")
            if self.pause:
                await self._needs(self.engine.sleep(), "the engine to sleep")
            yield

    async def publish(self) -> None:
        """Bring the engine the published weights, and see that it computes with them.

        Raises:
            RunError: it failed, or does not; a checkpoint has been written.
        """
        await self._needs(self.engine.wake(), "the engine to wake")
        await self._needs(self.engine.update_weights(self.weights), "the engine's update")
        probe = self.probe.check(self.engine, self.weights.version)
        self.parity = await self._needs(probe, "the parity probe")

    async def _needs(self, work: Awaitable[T], what: str) -> T:
        """Await a part of a sync until its deadline.

        Raises:
            RunError: it failed or took too long; a checkpoint has been written.
        """
        who, what = f"step {self.run.progress.step}", f"weight transfer: {what}"
        wait = bounded(work, what, who, remedy=_REMEDY, deadline_s=self.deadline_s)
        return await self.run.needs(wait)
