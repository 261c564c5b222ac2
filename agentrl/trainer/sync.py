"""Whose the weights are: the trainer writes them, then publishes a version, then engines read it.

    updating: engine sleeps > the trainer writes > version + 1      publish: wake > update > probe

A publisher is the one owner. What it opens does not change while it is open, so an engine that
dies and starts again asks the publisher, and never gets half of an update.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentrl.contracts.engine import Engine
from agentrl.engines.parity import ParityProbe
from agentrl.engines.weights import LiveWeights
from agentrl.runs.run import Run


class WeightSync:
    """Keeps one engine's weights in step with the trainer's."""

    def __init__(
        self, run: Run, engine: Engine, weights: LiveWeights, probe: ParityProbe, *, pause: bool
    ) -> None:
        self.parity: dict[str, float] = {}
        """What the last probe measured."""
        self._run = run
        self._engine = engine
        self._weights = weights
        self._probe = probe
        self._pause = pause

    @asynccontextmanager
    async def updating(self, version: int) -> AsyncIterator[None]:
        """Let the trainer change the weights; strictly on-policy, the engine sleeps meanwhile.

        Raises:
            RunError: the engine failed; a checkpoint has been written.
        """
        async with self._weights.writing(version):
            if self._pause:
                await self._run.needs(self._engine.sleep())
            yield

    async def publish(self) -> None:
        """Bring the engine the published weights, and see that it computes with them.

        Raises:
            RunError: it failed, or does not; a checkpoint has been written.
        """
        await self._run.needs(self._engine.wake())
        await self._run.needs(self._engine.update_weights(self._weights))
        self.parity = await self._run.needs(self._probe.check(self._engine, self._weights.version))
