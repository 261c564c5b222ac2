"""Any way out: the metadata address, the gateway, name servers, raw sockets."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_no_address_can_be_reached(attack: Attack) -> None:
    code = """
import socket
for address in ("169.254.169.254", "10.0.0.1", "172.17.0.1", "8.8.8.8", "192.168.0.1"):
    for port in (53, 80, 2375):
        try:
            socket.create_connection((address, port), timeout=0.2); print("reached", address)
        except OSError: pass
    try:
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.sendto(b"x", (address, 53)); print("sent")
    except OSError: pass
"""
    assert (await attack(code, run_timeout_s=8)).stdout == ""


async def test_odd_socket_families_are_refused(attack: Attack) -> None:
    code = """
import socket
for family in range(46):
    for kind in (1, 2, 3, 5):
        try:
            socket.socket(family, kind); print(family, kind)
        except (OSError, ValueError): pass
"""
    lines = set((await attack(code)).stdout.splitlines())
    assert lines <= {f"{family} {kind}" for family in (1, 2, 10) for kind in (1, 2)}


async def test_names_are_not_resolved(attack: Attack) -> None:
    code = "import socket\ntry: print(socket.getaddrinfo('example.com', 80))\nexcept OSError: pass"
    assert (await attack(code, run_timeout_s=10)).stdout == ""
