"""A kept-alive HTTP/1.1 connection to one server, as a transport of httpx.

httpx's pool looks at every connection at each request, and its streams ask anyio for several time
limits a request. A lane is one connection of httpcore's over plain asyncio: head and body leave in
one packet, and time limits are its caller's. Flow control is left out, as bodies are whole in
memory on both ways.
"""

import asyncio
import ssl
from typing import Any

import httpcore
import httpx
from typing_extensions import override

CONNECT_TIMEOUT_S = 5.0
KEEP_ALIVE_S = 4.0
"""Less than servers keep an idle connection (uvicorn 5 s), so that ours is seldom just closed."""


class Lane(httpx.AsyncBaseTransport):
    """Serves one request at a time; connects when it has to.

    Args:
        tls: what https connects with; None for plain http.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._connection: httpcore.AsyncHTTP11Connection | None = None

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its answer, whole.

        Raises:
            OSError: no connection, or it broke.
            httpcore.ProtocolError: the other side speaks no HTTP, or hung up.
        """
        url = request.url
        target = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        )
        connection = self._connection
        if connection is None or connection.is_closed() or connection.has_expired():
            await self.aclose()
            connection = self._connection = await self._connect(target.origin)
        answer = await connection.handle_async_request(
            httpcore.Request(
                request.method, target, headers=request.headers.raw, content=request.stream
            )
        )
        try:
            content = await answer.aread()
        finally:
            await answer.aclose()
        return httpx.Response(answer.status, headers=answer.headers, content=content)

    @override
    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    async def _connect(self, origin: httpcore.Origin) -> httpcore.AsyncHTTP11Connection:
        host, loop = origin.host.decode("ascii"), asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, stream = await loop.create_connection(_Stream, host, origin.port, ssl=self._tls)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"no connection within {CONNECT_TIMEOUT_S} s") from error
        return httpcore.AsyncHTTP11Connection(origin, stream, KEEP_ALIVE_S)


class _Stream(httpcore.AsyncNetworkStream, asyncio.Protocol):
    """The bytes of one socket; what is written leaves when an answer is waited for."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._to_send: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._error: Exception | None = None

    @override
    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self._received += data
        self._wake()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._ended, self._error = True, exc
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    @override
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._to_send:
            assert self._transport is not None
            self._transport.write(b"".join(self._to_send))
            self._to_send.clear()
        if not self._received and not self._ended:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._error is not None:
            raise self._error
        data = bytes(self._received)
        self._received.clear()
        return data

    @override
    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._to_send.append(buffer)

    @override
    async def aclose(self) -> None:
        if self._transport is not None:
            # What was not sent to a server that does not read would keep the socket open.
            self._transport.abort()

    @override
    def get_extra_info(self, info: str) -> Any:
        # Readable while idle: the server hung up, or sent what nobody asked for.
        return bool(self._received) or self._ended if info == "is_readable" else None
