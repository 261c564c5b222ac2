"""The data path to a container: a hijacked `attach` connection, straight from asyncio.

The SDK's own attach hands out a blocking socket behind private attributes. The request is one
HTTP upgrade; after it, what we write is the container's input, and what comes is its output in
chunks with an eight-byte head (stream number, length).
"""

import asyncio
import contextlib
import ssl
import struct
from typing import Any
from urllib.parse import urlsplit

from agentrl.errors import SandboxError

HEAD = struct.Struct(">BxxxI")
STDOUT, STDERR = 1, 2
STDERR_BYTES = 4096
STREAMS = "stream=1&stdin=1&stdout=1&stderr=1"
UPGRADE = "Host: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n"


class AttachStream:
    """A container's standard streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.stderr = b""

    async def read(self) -> bytes:
        """Return the next chunk of output; empty at the end."""
        try:
            while True:
                stream, size = HEAD.unpack(await self._reader.readexactly(HEAD.size))
                data = await self._reader.readexactly(size)
                if stream == STDOUT:
                    return data
                self.stderr = (self.stderr + data)[-STDERR_BYTES:]
        except (asyncio.IncompleteReadError, OSError):
            return b""

    async def write(self, data: bytes) -> None:
        """Send input."""
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        """Hang up, which ends the container's input."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def attach(client: Any, container_id: str, timeout_s: float) -> AttachStream:
    """Attach to a created container before it is started, so that nothing is missed.

    Raises:
        SandboxError: the daemon refused, or its address is of a kind we cannot hijack.
        OSError: it cannot be reached.
    """
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await _connect(client.api)
            stream = AttachStream(reader, writer)
            try:
                await _upgrade(client.api.api_version, container_id, reader, writer)
            except BaseException:
                await stream.close()
                raise
    except (TimeoutError, asyncio.IncompleteReadError) as error:
        raise SandboxError(f"docker did not let us attach to {container_id}: {error!r}") from error
    return stream


async def _upgrade(
    version: str, container_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    target = f"/v{version}/containers/{container_id}/attach?{STREAMS}"
    writer.write(f"POST {target} HTTP/1.1\r\n{UPGRADE}\r\n".encode())
    await writer.drain()
    answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    if answer.split(" ", 2)[1] not in ("101", "200"):
        raise SandboxError(f"docker refused to attach to {container_id}: {answer[:200]!r}")


async def _connect(api: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = str(api.base_url)
    if address.startswith("http+docker://localhost"):
        path = getattr(api.get_adapter(address), "socket_path", None)
        if path is not None:
            return await asyncio.open_unix_connection(path)
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise SandboxError(
            f"docker at {address}: only unix:// and tcp:// daemons can be attached to; forward "
            "the remote socket (`ssh -L`) and set DOCKER_HOST to it"
        )
    context: ssl.SSLContext | None = None
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=api.verify if api.verify is not True else None)
        if api.cert:
            context.load_cert_chain(*api.cert)
    return await asyncio.open_connection(parts.hostname, parts.port, ssl=context)
