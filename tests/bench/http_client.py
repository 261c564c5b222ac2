"""Requests a second through `HttpClient` and through a plain httpx client, on loopback.

The server is a process of its own that does next to nothing: asyncio's bare protocol, under uvloop
where it is installed. Requests look like a policy's turns: a prompt of 500 token ids out, 100
tokens with log-probabilities back. Both sides take turns; the figures are medians.
`requests_per_cpu_s` is of our side's own CPU time, which other work on the machine disturbs less.

    python tests/bench/http_client.py [--requests 3000] [--repeats 7]
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx

from agentrl.clients.client import HttpClient

IN_FLIGHT = 256
TURN = {
    "choices": [
        {
            "finish_reason": "length",
            "token_ids": list(range(100)),
            "logprobs": {"token_logprobs": [-0.5] * 100},
        }
    ]
}
BODY = {"model": "m", "prompt": list(range(500)), "max_tokens": 100, "logprobs": 0}


class Server(asyncio.Protocol):
    """Answers every request with one turn, as soon as its body is whole."""

    content = json.dumps(TURN).encode()
    answer = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(content), content)
    )

    def connection_made(self, transport: Any) -> None:
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            _, _, rest = self.received[:end].lower().partition(b"content-length:")
            length = end + 4 + int(rest.split(b"\r\n", 1)[0] or 0)
            if len(self.received) < length:
                return
            self.received = self.received[length:]
            self.transport.write(self.answer)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def rate(ask: Callable[[], Awaitable[object]], num_requests: int) -> float:
    """Return requests a second with IN_FLIGHT workers that ask again at once."""
    left = iter(range(num_requests))

    async def work() -> None:
        for _ in left:
            await ask()

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return num_requests / (time.perf_counter() - began)


async def measure(url: str, num_requests: int, repeats: int) -> dict[str, float]:
    ours = HttpClient(max_connections=IN_FLIGHT)
    limits = httpx.Limits(max_connections=IN_FLIGHT)
    plain = httpx.AsyncClient(limits=limits, timeout=httpx.Timeout(60, pool=None))

    async def ask_ours() -> None:
        (await ours.ask("POST", url, body=BODY, timeout_s=60)).json()

    async def ask_plain() -> None:
        (await plain.post(url, json=BODY)).raise_for_status().json()

    sides = {"requests_per_s": ask_ours, "plain_httpx_per_s": ask_plain}
    rates: dict[str, list[float]] = {name: [] for name in (*sides, "requests_per_cpu_s")}
    for repeat in range(repeats + 1):
        for name, ask in sides.items():
            # The plain side is slow, and its rate does not depend on how many it sends.
            share = num_requests if ask is ask_ours else num_requests // 4
            cpu_s = time.process_time()
            measured = await rate(ask, max(IN_FLIGHT, share))
            cpu_s = time.process_time() - cpu_s
            if repeat:
                rates[name].append(measured)
                if ask is ask_ours:
                    rates["requests_per_cpu_s"].append(share / cpu_s)
                print(f"{repeat} {name} {measured:.0f}", flush=True)
    await ours.close()
    await plain.aclose()
    return {name: round(statistics.median(of)) for name, of in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    server = subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1/completions"
        figures = asyncio.run(measure(url, options.requests, options.repeats))
    finally:
        server.kill()
        server.wait()
    print(json.dumps({**figures, "in_flight": IN_FLIGHT}))


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        runner: Callable[..., None] = asyncio.run
        with suppress(ImportError):
            from uvloop import run as runner  # type: ignore[no-redef]
        runner(serve())
    else:
        main()
