"""Stateful sessions: workers of their own, started when needed, shared by a few sessions each.

Sessions live as long as an episode, so they do not take the pool's seats from short programs.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from typing_extensions import override

from agentrl.contracts.sandbox import RunResult, RunStatus, Session
from agentrl.errors import SandboxError, ToolError
from agentrl.sandbox.worker import Seat, WorkerLostError, end_workers, read_result

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
        self._open: dict[Seat, PoolSession | None] = {}
        self._lock = asyncio.Lock()

    @property
    def num_open(self) -> int:
        """The number of open sessions."""
        return len(self._open)

    async def open(self, memory_mb: int) -> Session:
        """Open a session.

        Raises:
            SandboxError: there are as many as may be, or no worker starts.
        """
        seat = await self._take()
        session = self._open[seat] = PoolSession(seat, self)
        try:
            frame = await seat.worker.exchange(
                {"op": "open_session", "slot": seat.slot, "memory_mb": memory_mb},
                timeout_s=OPEN_TIMEOUT_S,
            )
        except BaseException:
            await asyncio.shield(self.close_session(session))
            raise
        if frame.header.get("status") != "ok":
            await self.close_session(session)
            raise SandboxError(f"a session did not open: {frame.header.get('reason')}")
        return session

    async def _take(self) -> Seat:
        async with self._lock:
            if len(self._open) >= self._most:
                raise SandboxError(
                    f"{self._most} sessions are open, as many as sandbox.max_sessions allows"
                )
            seat = next((seat for seat in self._free if seat.worker.doubt is None), None)
            if seat is None:
                seats = await self._start_worker()
                for new in seats:
                    new.worker.on_session_ended[new.slot] = partial(self._ended, new)
                self._free += seats
                seat = seats[0]
            self._free.remove(seat)
            self._open[seat] = None
            return seat

    def _ended(self, seat: Seat) -> None:
        """Take the seat back: its session was closed, or ended by itself."""
        session = self._open.pop(seat, None)
        if session is not None:
            session.ended = True
            self._free.append(seat)

    async def close_session(self, session: "PoolSession") -> None:
        """Close a session, unless it has ended already; end its worker if it was the last one."""
        seat = session.seat
        if self._open.get(seat) is session:
            with contextlib.suppress(WorkerLostError):
                await seat.worker.exchange(
                    {"op": "close_session", "slot": seat.slot}, timeout_s=CLOSE_TIMEOUT_S
                )
            self._ended(seat)
        await self.tidy()

    async def tidy(self) -> None:
        """Give up the sessions of lost workers; end the workers that hold no session."""
        for seat in [seat for seat in self._open if seat.worker.lost]:
            self._ended(seat)
        async with self._lock:
            used = {seat.worker for seat in self._open}
            unused = {seat.worker for seat in self._free} - used
            self._free = [seat for seat in self._free if seat.worker in used]
        await end_workers(unused)

    async def close(self) -> None:
        """End every session's worker."""
        workers = {seat.worker for seat in (*self._open, *self._free)}
        self._open.clear()
        self._free.clear()
        await end_workers(workers)


class PoolSession(Session):
    """One session in one slot."""

    def __init__(self, seat: Seat, desk: SessionDesk) -> None:
        self.seat, self._desk = seat, desk
        self.ended = False

    @override
    async def run_cell(
        self,
        code: str,
        *,
        timeout_s: float = 10.0,
        files: Mapping[str, bytes] | None = None,
        fetch_files: tuple[str, ...] = (),
    ) -> RunResult:
        if self.ended:
            raise ToolError("the session has ended: closed, idle for too long, or killed")
        files = files or {}
        header = {
            "op": "cell",
            "slot": self.seat.slot,
            "timeout_s": timeout_s,
            "max_output_bytes": CELL_OUTPUT_BYTES,
            "files": list(files),
            "fetch": list(fetch_files),
        }
        worker = self.seat.worker
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

    @override
    async def interrupt(self) -> None:
        if not self.ended:
            await self.seat.worker.notify({"op": "interrupt", "slot": self.seat.slot})

    @override
    async def close(self) -> None:
        await self._desk.close_session(self)
