"""The pool: warm workers, one fair queue in front of them, and a keeper that replaces them.

The same for every backend. A request takes a seat (a slot of a worker), exchanges one frame with
the guest, and gives the seat back. A worker that was lost, that doubts itself, or that has run its
number of programs is replaced in the background; a request whose worker was lost is run once more.
"""

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from typing_extensions import override

from agentrl.config.sandbox import PoolConfig
from agentrl.contracts.sandbox import RunRequest, RunResult, RunStatus, Sandbox, Session
from agentrl.errors import NotReadyError, SandboxError, ToolError
from agentrl.sandbox.guest import Berth, Spawner
from agentrl.sandbox.languages import Language, find_language, language_table, steps
from agentrl.sandbox.queue import FairQueue
from agentrl.sandbox.sessions import SessionDesk
from agentrl.sandbox.worker import Seat, Worker, WorkerLostError, end_workers, read_result
from agentrl.waits import waiting

logger = logging.getLogger(__name__)

ATTEMPTS = 2
ANSWER_GRACE_S = 30.0
SEAT_DEADLINE_S = 1800.0
STARTS_AT_ONCE = 4
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
OUTAGE_GRACE_S = 15.0
PING_EVERY_S, PING_TIMEOUT_S = 15.0, 10.0
FIRST_UID, LAST_UID = 20_000, 60_000
GUEST_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolStats:
    """What a pool is doing. `replaced` counts workers that were lost, doubted or recycled."""

    workers: int
    free_slots: int
    waiting: int
    sessions: int
    replaced: int


class Pool(Sandbox):
    """Runs programs on warm workers made by a `Spawner`."""

    def __init__(self, config: PoolConfig, spawner: Spawner) -> None:
        self.name = spawner.name
        self._config = config
        self._spawner = spawner
        self._languages = language_table(config.languages)
        self._seats: FairQueue[Seat] = FairQueue(config.max_queue)
        self._workers: set[Worker] = set()
        self._leaving: set[Worker] = set()
        self._outage_since: float | None = None
        self._doubtful: asyncio.Queue[Worker] = asyncio.Queue()
        self._starts = asyncio.Semaphore(STARTS_AT_ONCE)
        self._next_uid = random.randrange(LAST_UID - FIRST_UID)
        self._replaced = 0
        self._keeper: asyncio.Task[None] | None = None
        self._desk = SessionDesk(config.max_sessions, self._start_session_worker)

    @override
    async def start(self) -> None:
        """Start every worker.

        Raises:
            NotReadyError: the backend cannot be had, or its first worker does not start.
        """
        await self._spawner.prepare()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._config.workers):
                    group.create_task(self._add_worker())
        except* SandboxError as errors:
            await self.close()
            raise NotReadyError(f"sandbox {self.name}: {errors.exceptions[0]}") from errors
        self._keeper = asyncio.create_task(self._keep(), name=f"sandbox {self.name} keeper")

    @override
    async def run(self, request: RunRequest) -> RunResult:
        """Run one program on the next free seat.

        Raises:
            SandboxError: two workers were lost under it, or the queue is full.
            ToolError: the request is not acceptable.
        """
        language, began = self._check(request), time.monotonic()
        for attempt in range(1, ATTEMPTS + 1):
            seat = await self._seat(request.owner, since=began)
            lacking = seat.worker.missing.intersection(language.commands)
            if lacking:
                self._seats.give(seat)
                raise ToolError(
                    f"language {request.language!r} is not in this sandbox: no {sorted(lacking)}; "
                    "add it to the image (docker) or to this machine (bubblewrap)"
                )
            try:
                result = await self._run_on(seat, request, language, attempt)
            except WorkerLostError:
                if attempt == ATTEMPTS:
                    raise
                continue
            self.executions += 1
            return result
        raise AssertionError("unreachable")

    async def _seat(self, owner: str, *, since: float) -> Seat:
        """Wait for a seat; whoever has one gives it back by its program's deadline.

        Raises:
            SandboxError: there was none for very long, or the queue is full.
        """
        resource, waiter = f"sandbox {self.name}: a free place", f"program of {owner or 'a tool'}"
        remedy = "raise sandbox.workers, or look at the backend's daemon"
        deadline_s = time.monotonic() - since + SEAT_DEADLINE_S
        with waiting(resource, waiter, remedy=remedy, deadline_s=deadline_s, since=since):
            try:
                async with asyncio.timeout(SEAT_DEADLINE_S):
                    return await self._seats.take(owner)
            except TimeoutError:
                raise SandboxError(
                    f"{resource}: none for {waiter} in {SEAT_DEADLINE_S:g} s; {remedy}"
                ) from None

    async def _run_on(
        self, seat: Seat, request: RunRequest, language: Language, attempt: int
    ) -> RunResult:
        header = {
            "op": "run",
            "slot": seat.slot,
            "steps": steps(language, request),
            "file": language.file,
            "files": list(request.files),
            "fetch": list(request.fetch_files),
            "memory_mb": request.memory_mb,
            "max_output_bytes": request.max_output_bytes,
        }
        stdin = request.stdin.encode("utf-8", "surrogatepass")
        code = request.code.encode("utf-8", "surrogatepass")
        seat.worker.executions += 1
        timeout_s = request.compile_timeout_s + request.run_timeout_s + ANSWER_GRACE_S
        with waiting(
            f"sandbox {self.name}: run",
            f"program of {request.owner or 'a tool'}",
            remedy="look at the backend's daemon; the worker is replaced at the deadline",
            deadline_s=timeout_s,
        ):
            frame = await seat.worker.exchange(
                header,
                [code, stdin, *request.files.values()],
                timeout_s=timeout_s,
                settled=lambda: self._release(seat),
            )
        result = read_result(frame, sandbox_id=seat.worker.guest.sandbox_id, attempts=attempt)
        if result.status is RunStatus.SANDBOX_ERROR:
            raise WorkerLostError(f"sandbox {result.sandbox_id}: {frame.header.get('reason')}")
        return result

    @override
    async def open_session(self, *, memory_mb: int = 256, owner: str = "") -> Session:
        """Open a stateful Python session.

        Raises:
            SandboxError: as many are open as may be, or none can be started.
            ToolError: more memory is asked for than configured.
        """
        self._check_memory(memory_mb)
        return await self._desk.open(memory_mb)

    @override
    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        self._seats.fail(SandboxError("the sandbox is closing"))
        await self._desk.close()
        workers, self._workers, self._leaving = self._workers | self._leaving, set(), set()
        await end_workers(workers)
        await self._spawner.close()

    def stats(self) -> PoolStats:
        """Return what the pool is doing now."""
        return PoolStats(
            workers=len(self._workers),
            free_slots=self._seats.free,
            waiting=self._seats.waiting,
            sessions=self._desk.num_open,
            replaced=self._replaced,
        )

    @override
    def isolation(self) -> str:
        return self._spawner.isolation()

    def _check(self, request: RunRequest) -> Language:
        language = find_language(self._languages, request.language)
        self._check_memory(request.memory_mb)
        return language

    def _check_memory(self, memory_mb: int) -> None:
        if not 0 < memory_mb <= self._config.memory_mb:
            raise ToolError(
                f"memory_mb={memory_mb}: expected 1 to {self._config.memory_mb} (sandbox.memory_mb)"
            )

    def _release(self, seat: Seat) -> None:
        worker = seat.worker
        if worker.executions >= self._config.recycle_after:
            worker.suspect(f"it ran {worker.executions} programs")
        if worker.doubt is None:
            self._seats.give(seat)

    async def _add_worker(self) -> None:
        worker, seats = await self._start_worker(self._config.slots)
        worker.on_doubt = self._doubtful.put_nowait
        self._workers.add(worker)
        for seat in seats:
            self._seats.give(seat)

    async def _start_session_worker(self) -> list[Seat]:
        _, seats = await self._start_worker(self._config.sessions_per_worker)
        return seats

    async def _start_worker(self, slots: int) -> tuple[Worker, list[Seat]]:
        slots = min(slots, self._spawner.most_slots or slots)
        async with self._starts:
            uids = self._next_uids(slots)
            guest = await self._spawner.spawn(Berth(uids=uids), self._settings(uids))
            worker = Worker(guest)
            try:
                await worker.start(self._config.start_timeout_s)
            except BaseException:
                await asyncio.shield(worker.end())
                raise
        return worker, [Seat(worker=worker, slot=slot) for slot in range(slots)]

    def _next_uids(self, slots: int) -> tuple[int, ...]:
        """Return user ids that no living worker of this pool has: process limits count by user."""
        span = LAST_UID - FIRST_UID
        first, self._next_uid = self._next_uid, self._next_uid + slots
        return tuple(FIRST_UID + (first + number) % span for number in range(slots))

    def _settings(self, uids: tuple[int, ...]) -> dict[str, Any]:
        commands = {word for lang in self._languages.values() for word in lang.commands}
        return {
            "uids": uids,
            "commands": sorted(commands),
            "disk_mb": self._config.disk_mb,
            "processes": self._config.processes,
            "preload": self._config.preload,
            "expire_s": self._config.expire_s,
            "session_idle_s": self._config.session_idle_s,
            "path": GUEST_PATH,
            "environment": {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        }

    async def _keep(self) -> None:
        """Replace doubtful workers, and ping the others now and then."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ping_for_ever())
            while True:
                worker = await self._doubtful.get()
                if worker in self._workers:
                    self._workers.discard(worker)
                    self._replaced += 1
                    self._seats.discard_where(partial(Seat.sits_on, worker=worker))
                    group.create_task(self._replace(worker))

    async def _replace(self, worker: Worker) -> None:
        self._leaving.add(worker)
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await self._add_worker()
                break
            except SandboxError as error:
                self._note_outage(error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        self._outage_since = None
        await worker.idle()
        await worker.end()
        self._leaving.discard(worker)

    def _note_outage(self, error: SandboxError) -> None:
        """Let waiting requests fail once there has been no worker at all for long enough."""
        now = time.monotonic()
        if self._outage_since is None:
            self._outage_since = now
            logger.warning("sandbox %s: no replacement for a worker yet: %s", self.name, error)
        if not self._workers and now - self._outage_since > OUTAGE_GRACE_S:
            self._seats.fail(error)

    async def _ping_for_ever(self) -> None:
        while True:
            await asyncio.sleep(PING_EVERY_S)
            await self._desk.tidy()
            for worker in list(self._workers):
                try:
                    await worker.exchange({"op": "ping"}, timeout_s=PING_TIMEOUT_S)
                except WorkerLostError as error:
                    logger.info("%s", error)
