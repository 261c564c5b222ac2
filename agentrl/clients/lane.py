"""A kept-alive HTTP/1.1 connection to one server, as a transport of httpx.

httpx's pool looks at every connection at each request, and its connections take locks and time
limits of anyio at every step. A lane is h11 over a plain asyncio socket: head and body leave in one
packet, and time limits are its caller's. Flow control is left out, as bodies are whole in memory on
both ways.
"""

import asyncio
import ssl
import time
from typing import Any

import h11
import httpx
from typing_extensions import override

CONNECT_TIMEOUT_S = 5.0
KEEP_ALIVE_S = 4.0
"""Less than servers keep an idle connection (uvicorn 5 s), so that ours is seldom just closed."""
LONGEST_HEAD_BYTES = 100 * 1024


class Lane(httpx.AsyncBaseTransport):
    """Serves one request at a time; connects when it has to.

    Args:
        tls: what https connects with; None for plain http.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._socket: _Socket | None = None

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its answer, whole.

        Raises:
            OSError: no connection, or it broke.
            httpx.ConnectTimeout: no connection in time.
            h11.ProtocolError: the other side speaks no HTTP, or broke off.
        """
        socket, self._socket = self._socket, None
        if socket is None or not socket.usable:
            if socket is not None:
                socket.close()
            socket = await self._connect(request.url)
        try:
            answer = await socket.exchange(request)
        finally:
            # A cancelled exchange leaves an answer that is nobody's.
            if socket.usable:
                self._socket = socket
            else:
                socket.close()
        return answer

    @override
    async def aclose(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()

    async def _connect(self, url: httpx.URL) -> "_Socket":
        port = url.port or (443 if self._tls else 80)
        host, loop = url.raw_host.decode("ascii"), asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, socket = await loop.create_connection(_Socket, host, port, ssl=self._tls)
        except TimeoutError as error:
            raise httpx.ConnectTimeout(f"no connection within {CONNECT_TIMEOUT_S:g} s") from error
        return socket


class _Socket(asyncio.Protocol):
    """A socket and what h11 knows of it; idle, or in one exchange."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST_HEAD_BYTES)
        self._waiter: asyncio.Future[None] | None = None
        self._idle_since_s = time.monotonic()
        self._idle = True
        self._ended = False
        self._error: Exception | None = None

    @property
    def usable(self) -> bool:
        """Whether the next exchange may go over it."""
        fresh = time.monotonic() - self._idle_since_s < KEEP_ALIVE_S
        return self._idle and not self._ended and fresh

    @override
    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        if self._idle:
            # An answer that nobody asked for would be taken for the next one.
            self.close()
        else:
            self._http.receive_data(data)
            self._wake()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._ended, self._error = True, exc
        self._wake()

    def close(self) -> None:
        """Close it at once: what a server does not read would keep it open."""
        self._ended = True
        if self._transport is not None:
            self._transport.abort()

    async def exchange(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its answer."""
        self._idle = False
        head = h11.Request(
            method=request.method, target=request.url.raw_path, headers=request.headers.raw
        )
        packet = [self._http.send(head)]
        if request.content:
            packet.append(self._http.send(h11.Data(data=request.content)))
        packet.append(self._http.send(h11.EndOfMessage()))
        self._transport.write(b"".join(part for part in packet if part))
        answer, content = await self._answer()
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._idle, self._idle_since_s = True, time.monotonic()
        headers = answer.headers.raw_items()
        return httpx.Response(answer.status_code, headers=headers, content=content)

    async def _answer(self) -> tuple[h11.Response, bytes]:
        answer: h11.Response | None = None
        parts: list[bytes] = []
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                await self._more(begun=answer is not None)
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            elif isinstance(event, h11.Response):
                answer = event
            elif isinstance(event, h11.EndOfMessage):
                assert answer is not None
                return answer, b"".join(parts)
            elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                raise h11.RemoteProtocolError("the server left HTTP/1.1")

    async def _more(self, *, begun: bool) -> None:
        """Wait for bytes, or for the end of them."""
        if not self._ended:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        elif self._error is not None:
            raise self._error
        elif not begun:
            raise ConnectionResetError("the server hung up without an answer")
        else:
            self._http.receive_data(b"")

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
