"""The same episodes in lock step: what a rollout loop costs that advances turn by turn.

`LockStep` wraps the engine under test, so that the episode runner, the tools and the dialogues
are the ones measured without it. All live episodes generate turn k together; none goes on to its
tool before the last of them has written its turn, nor to turn k + 1 before the last tool is done.
"""

import asyncio

from agentrl.contracts.engine import Completion, Engine, Prompt, Sampling, WeightPublisher


class Rendezvous:
    """A barrier whose number of parties shrinks as episodes end."""

    def __init__(self, parties: int) -> None:
        self._parties = parties
        self._waiting = 0
        self._open = asyncio.Event()

    async def wait(self) -> None:
        """Wait until every party waits here."""
        gate = self._open
        self._waiting += 1
        self._release_if_complete()
        await gate.wait()

    def leave(self) -> None:
        """Stop counting on one party."""
        self._parties -= 1
        self._release_if_complete()

    def _release_if_complete(self) -> None:
        if 0 < self._parties <= self._waiting:
            self._waiting = 0
            self._open.set()
            self._open = asyncio.Event()


class LockStep:
    """An engine for `parties` episodes; call `leave` once for each that has ended."""

    def __init__(self, engine: Engine, parties: int) -> None:
        self._engine = engine
        self._before = Rendezvous(parties)
        self._after = Rendezvous(parties)

    async def generate(self, prompt: Prompt, sampling: Sampling, *, session: str) -> Completion:
        """Complete one prompt between two meetings of all live episodes."""
        await self._before.wait()
        completion = await self._engine.generate(prompt, sampling, session=session)
        await self._after.wait()
        return completion

    def leave(self) -> None:
        """One episode has ended; the others no longer wait for it."""
        self._before.leave()
        self._after.leave()

    async def update_weights(self, publisher: WeightPublisher) -> None:
        """Pass on."""
        await self._engine.update_weights(publisher)

    async def sleep(self) -> None:
        """Pass on."""
        await self._engine.sleep()

    async def wake(self) -> None:
        """Pass on."""
        await self._engine.wake()

    async def close(self) -> None:
        """Pass on."""
        await self._engine.close()
