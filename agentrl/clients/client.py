"""A client for many requests at once: each has a connection to itself, taken from those at rest.

`httpx.AsyncClient` is left out: its own part of a request (cookies, redirects, merging of
addresses and headers) costs as much as the exchange, and a server of ours needs none of it.
"""

import asyncio
import json
import ssl
import urllib.request
from collections.abc import Mapping
from typing import Any

import httpx

from agentrl.clients.border import TransientError, border, status_error
from agentrl.clients.lane import CONNECT_TIMEOUT_S, KEEP_ALIVE_S, Lane


class HttpClient:
    """Sends requests to any address. Close it in the end.

    Args:
        headers: sent with every request.
        max_connections: requests at once; further ones wait, within their time limit.
    """

    def __init__(
        self, *, headers: Mapping[str, str] | None = None, max_connections: int = 256
    ) -> None:
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._places = asyncio.Semaphore(max_connections)
        self._idle: dict[str, list[httpx.AsyncBaseTransport]] = {}
        self._parsed: dict[str, tuple[httpx.URL, str, httpx.Headers]] = {}
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    async def request(
        self, method: str, url: str, *, body: bytes | None = None, timeout_s: float
    ) -> httpx.Response:
        """Make one exchange and return the answer, whatever its status, with its whole body.

        Raises:
            TransientError: no answer, or none within `timeout_s`.
        """
        with border(url):
            try:
                async with asyncio.timeout(timeout_s), self._places:
                    return await self._exchange(method, url, body)
            except TimeoutError as error:
                raise TimeoutError(f"none within {timeout_s:g} s") from error

    async def ask(
        self,
        method: str,
        url: str,
        *,
        body: Any = None,
        timeout_s: float,
        remedy: str = "",
    ) -> httpx.Response:
        """Send `body` (bytes as they are, else as JSON) and return an answer below 400.

        Raises:
            TransientError: no answer, 429 or 5xx.
            RefusedError: another 4xx.
        """
        content = body if isinstance(body, bytes | None) else json_bytes(body)
        answer = await self.request(method, url, body=content, timeout_s=timeout_s)
        if answer.status_code >= 400:
            raise status_error(url, answer.status_code, answer.text, answer.headers, remedy=remedy)
        return answer

    async def close(self) -> None:
        """Close every connection. May be called twice."""
        self._closed = True
        for lanes in self._idle.values():
            for lane in lanes:
                await lane.aclose()
        self._idle.clear()
        # Sockets close in the loop's next round.
        await asyncio.sleep(0)

    async def _exchange(self, method: str, address: str, body: bytes | None) -> httpx.Response:
        url, origin, headers = self._parsed.get(address) or self._parse(address)
        if self._closed:
            raise TransientError(f"{address}: the client is closed")
        lanes = self._idle.setdefault(origin, [])
        lane = lanes.pop() if lanes else self._new_lane(url)
        try:
            request = httpx.Request(
                method,
                url,
                headers=headers,
                content=body,
                extensions={"timeout": {"connect": CONNECT_TIMEOUT_S}},
            )
            answer = await lane.handle_async_request(request)
            await answer.aread()
            return answer
        finally:
            if self._closed:
                await lane.aclose()
            else:
                lanes.append(lane)

    def _parse(self, address: str) -> tuple[httpx.URL, str, httpx.Headers]:
        url = httpx.URL(address)
        if url.scheme not in ("http", "https") or not url.host:
            raise httpx.InvalidURL("no http:// or https:// address; correct it")
        host = url.netloc.decode("ascii")
        parsed = (url, f"{url.scheme}://{host}", httpx.Headers({"Host": host, **self._headers}))
        # Paths of sessions are many and short-lived.
        if len(self._parsed) >= 256:
            self._parsed.clear()
        self._parsed[address] = parsed
        return parsed

    def _new_lane(self, url: httpx.URL) -> httpx.AsyncBaseTransport:
        if url.scheme == "https" and self._tls is None:
            self._tls = httpx.create_ssl_context()
        proxy = _proxy(url)
        if proxy is None:
            return Lane(self._tls if url.scheme == "https" else None)
        one = httpx.Limits(max_connections=1, keepalive_expiry=KEEP_ALIVE_S)
        return httpx.AsyncHTTPTransport(verify=self._tls or False, limits=one, proxy=proxy)


def json_bytes(body: Any) -> bytes:
    """Return JSON as compact UTF-8."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _proxy(url: httpx.URL) -> str | None:
    """Return the proxy that the environment names for an address."""
    proxies = urllib.request.getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    return None if not found or urllib.request.proxy_bypass(url.host) else found
