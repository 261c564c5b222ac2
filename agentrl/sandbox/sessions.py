"""Stateful sessions: workers of their own, started when needed, shared by a few sessions each.

Sessions live as long as an episode, so they do not take the pool's seats from short programs.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping

from agentrl.contracts.sandbox import RunResult, RunStatus, Session
from agentrl.errors import SandboxError
from agentrl.sandbox.results import read_result
from agentrl.sandbox.seat import Seat
from agentrl.sandbox.worker import Worker, WorkerLostError

CELL_OUTPUT_BYTES = 64 * 1024
CLOSE_TIMEOUT_S = 20.0
OPEN_TIMEOUT_S = 30.0
CELL_GRACE_S = 30.0


class SessionDesk:
    """Hands out seats to sessions, starting and ending workers as they come and go."""

    def __init__(self, most: int, start_worker: Callable[[], Awaitable[list[Seat]]]) -> None:
        self._most = most
        self._start_worker = start_worker
        self._free: list[Seat] = []
        self._open: set[Seat] = set()
        self._lock = asyncio.Lock()

    async def open(self, memory_mb: int) -> Session:
        """Open a session.

        Raises:
            SandboxError: there are as many as may be, or no worker starts.
        """
        seat = await self._take()
        try:
            frame = await seat.worker.exchange(
                {"op": "open_session", "slot": seat.slot, "memory_mb": memory_mb},
                timeout_s=OPEN_TIMEOUT_S,
            )
        except BaseException:
            await asyncio.shield(self.give_back(seat))
            raise
        if frame.header.get("status") != "ok":
            await self.give_back(seat)
            raise SandboxError(f"a session did not open: {frame.header.get('reason')}")
        return PoolSession(seat, self)

    async def _take(self) -> Seat:
        async with self._lock:
            self._free = [seat for seat in self._free if seat.worker.doubt is None]
            if not self._free:
                if len(self._open) >= self._most:
                    raise SandboxError(
                        f"{self._most} sessions are open, as many as sandbox.max_sessions allows"
                    )
                self._free = list(await self._start_worker())
            seat = self._free.pop()
            self._open.add(seat)
            return seat

    async def give_back(self, seat: Seat) -> None:
        """Close whatever session the seat holds; end its worker when that was the last one."""
        if seat not in self._open:
            return
        with contextlib.suppress(WorkerLostError):
            await seat.worker.exchange(
                {"op": "close_session", "slot": seat.slot}, timeout_s=CLOSE_TIMEOUT_S
            )
        self._open.discard(seat)
        async with self._lock:
            self._free.append(seat)
            if any(other.worker is seat.worker for other in self._open):
                return
            self._free = [other for other in self._free if other.worker is not seat.worker]
        await seat.worker.end()

    async def close(self) -> None:
        """End every session's worker."""
        workers = {seat.worker for seat in (*self._open, *self._free)}
        self._open.clear()
        self._free.clear()
        await _end_all(workers)


async def _end_all(workers: set[Worker]) -> None:
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.end())


class PoolSession(Session):
    """One session in one slot."""

    def __init__(self, seat: Seat, desk: SessionDesk) -> None:
        self._seat, self._desk = seat, desk

    async def run_cell(
        self,
        code: str,
        *,
        timeout_s: float = 10.0,
        files: Mapping[str, bytes] | None = None,
        fetch_files: tuple[str, ...] = (),
    ) -> RunResult:
        """Run one cell (see `Session.run_cell`)."""
        files = files or {}
        header = {
            "op": "cell",
            "slot": self._seat.slot,
            "timeout_s": timeout_s,
            "max_output_bytes": CELL_OUTPUT_BYTES,
            "files": list(files),
            "fetch": list(fetch_files),
        }
        worker = self._seat.worker
        worker.executions += 1
        frame = await worker.exchange(
            header,
            [code.encode("utf-8", "surrogatepass"), *files.values()],
            timeout_s=timeout_s + CELL_GRACE_S,
        )
        result = read_result(frame, sandbox_id=worker.guest.sandbox_id, attempts=1)
        if result.status is RunStatus.SANDBOX_ERROR:
            raise SandboxError(f"session lost: {frame.header.get('reason')}")
        return result

    async def interrupt(self) -> None:
        """Interrupt the running cell."""
        await self._seat.worker.notify({"op": "interrupt", "slot": self._seat.slot})

    async def close(self) -> None:
        """End the interpreter and free its slot."""
        await self._desk.give_back(self._seat)
