"""What the pool needs of a backend: a way to start a walled-in fork server and talk to it.

A `Spawner` knows one kind of wall (Docker, bubblewrap, none). The pool, its queue, health checks
and retries are the same for all of them.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from abc import ABC, abstractmethod
from asyncio.subprocess import Process
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from agentrl.paths import shipped_root

logger = logging.getLogger(__name__)

LAST_WORDS_BYTES = 4096
END_TIMEOUT_S = 10.0


class Guest(ABC):
    """One running fork server: a byte stream both ways, and an end."""

    sandbox_id: str

    @abstractmethod
    async def read(self) -> bytes:
        """Return what has arrived; empty when the guest is gone."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Send bytes, waiting while the guest does not take them.

        Raises:
            OSError: the guest is gone.
        """

    @abstractmethod
    async def end(self) -> None:
        """Kill the guest with everything in it, and wait for that. May be called twice."""

    @abstractmethod
    async def last_words(self) -> str:
        """Return what the guest wrote on its standard error, for error messages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Berth:
    """What distinguishes one worker from another: its slots' user ids."""

    uids: tuple[int, ...]


class Spawner(ABC):
    """Starts guests of one kind.

    `most_slots` bounds the programs that one guest may hold at once, where its walls cannot keep
    several apart.
    """

    name: str
    most_slots: int | None = None

    @abstractmethod
    async def prepare(self) -> None:
        """Check that guests can be started.

        Raises:
            NotReadyError: they cannot, with the remedy.
        """

    @abstractmethod
    async def spawn(self, berth: Berth, settings: dict[str, Any]) -> Guest:
        """Start one guest. `settings` lacks only what the walls decide (see `complete`).

        Raises:
            SandboxError: it did not start.
        """

    @abstractmethod
    def isolation(self) -> str:
        """Say in one line which walls stand."""

    @abstractmethod
    async def close(self) -> None:
        """Release what `prepare` took. Guests have ended before."""


def guest_folder() -> Path:
    """Return the folder of the fork server's files."""
    return shipped_root() / "sandbox"


class ProcessGuest(Guest):
    """A guest that is a child process of ours, spoken to over a socket pair."""

    def __init__(
        self,
        sandbox_id: str,
        process: Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.sandbox_id = sandbox_id
        self._process = process
        self._reader, self._writer = reader, writer

    @classmethod
    async def start(
        cls, sandbox_id: str, command: Sequence[str], environment: dict[str, str]
    ) -> "ProcessGuest":
        """Start `command` with one end of a socket pair as its input and output."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        return cls(sandbox_id, process, reader, writer)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @override
    async def read(self) -> bytes:
        try:
            return await self._reader.read(1 << 16)
        except OSError:
            return b""

    @override
    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    @override
    async def end(self) -> None:
        """Kill the child. Its walls (a PID namespace, or adoption) end the rest."""
        self._writer.close()
        if self._process.returncode is None:
            # Not `Process.kill`: it polls, and would reap the child before asyncio's watcher does.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            logger.warning("sandbox %s is dying slowly; no longer waiting", self.sandbox_id)
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    @override
    async def last_words(self) -> str:
        if self._process.stderr is None:
            return ""
        try:
            async with asyncio.timeout(1.0):
                data = await self._process.stderr.read(LAST_WORDS_BYTES)
        except TimeoutError:
            return ""
        return data.decode("utf-8", "replace").strip()
