"""One worker: a guest, the exchange of frames with it, its seats, and what its answers mean.

The guest's word is checked, never trusted.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from agentrl.contracts.sandbox import RunResult, RunStatus
from agentrl.errors import SandboxError, ToolError
from agentrl.sandbox.frames import Decoder, Frame, encode
from agentrl.sandbox.guest import Guest

logger = logging.getLogger(__name__)


class WorkerLostError(SandboxError):
    """The guest went away with a request under way: whether that ran to its end is not known."""


class Worker:
    """Sends requests to one guest and matches its answers to them."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.executions = 0
        self.doubt: str | None = None
        self.missing: frozenset[str] = frozenset()
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Frame]] = {}
        self._ready: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._reader: asyncio.Task[None] | None = None
        self._lost: str | None = None
        self.on_session_ended: dict[int, Callable[[], None]] = {}
        self.on_doubt: Callable[[Worker], None] | None = None

    @property
    def lost(self) -> bool:
        """Whether the guest is known to be gone."""
        return self._lost is not None

    async def start(self, timeout_s: float) -> None:
        """Begin reading; wait until the guest says that it is ready. On an error, call `end`.

        Raises:
            SandboxError: it does not, with what it wrote on its standard error.
        """
        self._reader = asyncio.create_task(self._read(), name=f"sandbox {self.guest.sandbox_id}")
        try:
            async with asyncio.timeout(timeout_s):
                ready = await asyncio.shield(self._ready)
        except TimeoutError as error:
            raise SandboxError(
                f"sandbox {self.guest.sandbox_id} did not get ready within {timeout_s:.0f} s"
            ) from error
        self.missing = frozenset(ready.header["missing"])

    async def exchange(
        self,
        header: dict[str, Any],
        blobs: Sequence[bytes] = (),
        *,
        timeout_s: float,
        settled: Callable[[], None] | None = None,
    ) -> Frame:
        """Send one request and wait for its answer; a cancelled caller ends the program.

        `settled` is called once the guest has done with the request, which after a cancellation
        is later than the return of this call.

        Raises:
            WorkerLostError: the guest went away, or did not answer within `timeout_s`.
        """
        number = next(self._ids)
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        if settled is not None:
            answer.add_done_callback(lambda _: settled())
        self._answers[number] = answer
        try:
            async with asyncio.timeout(timeout_s):
                await self._send({**header, "id": number}, blobs)
                return await asyncio.shield(answer)
        except asyncio.CancelledError:
            await self.notify({"op": "cancel", "id": number})
            raise
        except TimeoutError:
            self._lose(f"no answer within {timeout_s:.0f} s")
            raise WorkerLostError(
                f"sandbox {self.guest.sandbox_id} did not answer within {timeout_s:.0f} s"
            ) from None

    async def _send(self, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        try:
            await self.guest.write(encode(header, blobs))
        except OSError as error:
            self._lose(str(error))
        if self._lost is not None:
            self._lose(self._lost)
            raise WorkerLostError(f"sandbox {self.guest.sandbox_id} was lost: {self._lost}")

    async def notify(self, header: dict[str, Any]) -> None:
        """Send a frame that has no answer; nothing happens when the guest is gone."""
        with contextlib.suppress(WorkerLostError):
            await self._send(header, ())

    def suspect(self, reason: str) -> None:
        """Have this worker replaced: something is not as it should be."""
        if self.doubt is None:
            self.doubt = reason
            logger.debug("sandbox %s is to be replaced: %s", self.guest.sandbox_id, reason)
            if self.on_doubt is not None:
                self.on_doubt(self)

    async def idle(self) -> None:
        """Wait until no request is under way."""
        pending = [answer for answer in self._answers.values() if not answer.done()]
        if pending:
            await asyncio.wait(pending)

    async def end(self) -> None:
        """Kill the guest and stop reading. May be called twice."""
        await self.guest.end()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])

    async def _read(self) -> None:
        decoder = Decoder()
        reason = "its stream ended"
        try:
            while data := await self.guest.read():
                for frame in decoder.feed(data):
                    self._take(frame)
            if words := await self.guest.last_words():
                reason = f"it ended, and wrote: {words}"
        except SandboxError as error:
            reason = str(error)
        finally:
            self._lose(reason)

    def _take(self, frame: Frame) -> None:
        operation = frame.header.get("op")
        if operation == "ready" and not self._ready.done():
            self._ready.set_result(frame)
        elif operation == "session_ended":
            self.on_session_ended.get(frame.header.get("slot", -1), _nothing)()
        elif operation == "broken":
            self.suspect(str(frame.header.get("reason")))
        elif operation == "result":
            answer = self._answers.pop(frame.header.get("id", 0), None)
            if answer is not None and not answer.done():
                answer.set_result(frame)

    def _lose(self, reason: str) -> None:
        self._lost = self._lost or reason
        error = WorkerLostError(f"sandbox {self.guest.sandbox_id} was lost: {reason}")
        waiting = [self._ready, *self._answers.values()]
        self._answers.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # read, so that an abandoned one does not warn
        self.suspect(reason)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Seat:
    """One slot of one worker; two seats are equal only when they are the same object."""

    worker: Worker
    slot: int

    def sits_on(self, worker: Worker) -> bool:
        """Whether the slot is one of `worker`'s."""
        return self.worker is worker


def _nothing() -> None:
    """A session ended that nobody holds any more."""


async def end_workers(workers: Iterable[Worker]) -> None:
    """End several workers at once."""
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.end())


def read_result(frame: Frame, *, sandbox_id: str, attempts: int) -> RunResult:
    """Decode a result frame.

    Raises:
        ToolError: the guest refused the request (a path outside the work directory).
        SandboxError: the frame makes no sense.
    """
    header = frame.header
    if header.get("status") == "refused":
        raise ToolError(str(header.get("reason")))
    try:
        names = header.get("files", [])
        stdout, stderr, *contents = frame.blobs or (b"", b"")
        out, out_damaged = decode(stdout)
        err, err_damaged = decode(stderr)
        truncated = list(header.get("truncated", []))
        if out_damaged or err_damaged:
            truncated.append("invalid_utf8")
        return RunResult(
            status=RunStatus(header["status"]),
            exit_code=header.get("exit_code"),
            signal=header.get("signal"),
            stdout=out,
            stderr=err,
            truncated=tuple(truncated),
            duration_s=float(header["duration_s"]),
            cpu_s=float(header["cpu_s"]),
            peak_memory_mb=float(header["peak_kib"]) / 1024,
            files=dict(zip(names, contents, strict=True)),
            sandbox_id=sandbox_id,
            attempts=attempts,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SandboxError(f"sandbox {sandbox_id} sent a senseless result: {error!r}") from error


def decode(data: bytes) -> tuple[str, bool]:
    """Decode UTF-8 with replacements; returns the text and whether any were needed."""
    try:
        return data.decode("utf-8"), False
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace"), True
