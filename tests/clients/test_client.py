import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from agentrl.clients.border import RefusedError, TransientError
from agentrl.clients.client import HttpClient

Respond = Callable[[bytes, bytes], Awaitable[bytes]]


class Server:
    """Speaks HTTP/1.1 over real sockets, and counts connections."""

    def __init__(self, respond: Respond) -> None:
        self.respond, self.url = respond, ""
        self.num_connections = self.num_open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        self.num_open += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                _, _, rest = head.lower().partition(b"content-length:")
                body = await reader.readexactly(int(rest.split(b"\r\n")[0] or 0))
                answer = await self.respond(head, body)
                writer.write(answer)
                if b"connection: close" in answer:
                    return
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            self.num_open -= 1
            writer.close()


def answer(content: bytes = b"{}", status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(content)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


async def echo(head: bytes, body: bytes) -> bytes:
    return answer(body or b"{}")


@asynccontextmanager
async def serving(respond: Respond) -> AsyncIterator[Server]:
    server = Server(respond)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()


@asynccontextmanager
async def client(**options: int) -> AsyncIterator[HttpClient]:
    opened = HttpClient(headers={"Authorization": "Bearer x"}, **options)
    try:
        yield opened
    finally:
        await opened.close()


async def test_connections_are_kept_and_never_shared() -> None:
    async with serving(echo) as server, client() as http:
        for _ in range(2):
            bodies = [{"n": i, "text": "ä" * 100_000} for i in range(20)]
            asked = (http.ask("POST", server.url, body=body, timeout_s=10) for body in bodies)
            assert [one.json() for one in await asyncio.gather(*asked)] == bodies
        assert server.num_connections == 20


async def test_the_request_is_what_was_asked_for() -> None:
    async def show(head: bytes, body: bytes) -> bytes:
        return answer(json.dumps([head.decode().splitlines(), body.decode()]).encode())

    async with serving(show) as server, client() as http:
        url = server.url + "/a/b?mode=abort"
        lines, body = (await http.ask("DELETE", url, body=b"raw", timeout_s=10)).json()
    assert lines[0] == "DELETE /a/b?mode=abort HTTP/1.1"
    assert {"Authorization: Bearer x", f"Host: {server.url[7:]}"} <= set(lines)
    assert body == "raw"


async def test_no_more_connections_than_allowed() -> None:
    most = 0

    async def slowly(head: bytes, body: bytes) -> bytes:
        nonlocal most
        most = max(most, server.num_open)
        await asyncio.sleep(0.01)
        return answer()

    async with serving(slowly) as server, client(max_connections=3) as http:
        await asyncio.gather(*(http.ask("GET", server.url, timeout_s=10) for _ in range(12)))
    assert most == 3


async def test_a_connection_that_the_server_closed_is_replaced() -> None:
    async def close(head: bytes, body: bytes) -> bytes:
        return answer(b"{}", "200 OK", "connection: close")

    async with serving(close) as server, client() as http:
        for _ in range(3):
            await http.ask("GET", server.url, timeout_s=10)
        assert server.num_connections == 3


async def test_a_cancelled_request_leaves_no_answer_for_the_next() -> None:
    async def by_name(head: bytes, body: bytes) -> bytes:
        await asyncio.sleep(0.2 if body == b"slow" else 0)
        return answer(body)

    async with serving(by_name) as server, client(max_connections=1) as http:
        with pytest.raises(TransientError, match=r"none within 0\.05 s") as caught:
            await http.ask("POST", server.url, body=b"slow", timeout_s=0.05)
        assert caught.value.late
        assert (await http.ask("POST", server.url, body=b"next", timeout_s=10)).text == "next"


async def test_nobody_there_is_told_with_address_and_remedy() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/run"
    async with client() as http:
        with pytest.raises(TransientError) as caught:
            await http.ask("GET", url, timeout_s=10)
    assert url in str(caught.value) and "see that a server runs there" in str(caught.value)
    assert not caught.value.late


async def test_an_answer_that_breaks_off_may_be_asked_for_again() -> None:
    async def half(head: bytes, body: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 10\r\n\r\nhal"

    async with serving(half) as server, client() as http:
        with pytest.raises(TransientError, match="expected an answer"):
            await http.ask("GET", server.url, timeout_s=10)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_server_says_when_to_come_back(status: int) -> None:
    async def busy(head: bytes, body: bytes) -> bytes:
        return answer(b"full", f"{status} Busy", "Retry-After: 7")

    async with serving(busy) as server, client() as http:
        with pytest.raises(TransientError, match=f"{status} full") as caught:
            await http.ask("GET", server.url, timeout_s=10)
    assert (caught.value.retry_after_s, caught.value.status) == (7, status)


async def test_a_refusal_carries_status_text_and_remedy() -> None:
    async def refuse(head: bytes, body: bytes) -> bytes:
        return answer(b"no such path", "404 Not Found")

    async with serving(refuse) as server, client() as http:
        with pytest.raises(RefusedError, match=r"404 no such path .*; correct it") as caught:
            await http.ask("GET", server.url, timeout_s=10, remedy="correct it")
    assert (caught.value.status, caught.value.text) == (404, "no such path")


async def test_what_is_no_address_is_told() -> None:
    async with client() as http:
        for url in ("127.0.0.1:8000/x", "ftp://host/x"):
            with pytest.raises(TransientError, match="no http:// or https:// address"):
                await http.ask("GET", url, timeout_s=10)


async def test_closing_ends_connections_and_later_requests() -> None:
    async with serving(echo) as server:
        http = HttpClient()
        await http.ask("GET", server.url, timeout_s=10)
        await http.close()
        await http.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while server.num_open:
                    await asyncio.sleep(0.01)
        assert server.num_open == 0
        with pytest.raises(TransientError, match="the client is closed"):
            await http.ask("GET", server.url, timeout_s=10)
