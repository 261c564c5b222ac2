"""ptrace, mount, unshare, bpf, io_uring and the like."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


CALLS = {
    "ptrace": (101, 117, "(16, 1, 0, 0)"),
    "mount": (165, 40, "(b'none', b'/box', b'tmpfs', 0, 0)"),
    "unshare": (272, 97, "(0x10000000,)"),
    "setns": (308, 268, "(0, 0)"),
    "bpf": (321, 280, "(0, 0, 0)"),
    "io_uring_setup": (425, 425, "(1, 0)"),
    "perf_event_open": (298, 241, "(0, 0, 0, 0, 0)"),
    "keyctl": (250, 219, "(0, 0)"),
    "userfaultfd": (323, 282, "(0,)"),
    "process_vm_readv": (310, 270, "(1, 0, 0, 0, 0, 0)"),
    "open_by_handle_at": (304, 265, "(0, 0, 0)"),
    "pivot_root": (155, 41, "(b'/', b'/')"),
    "shmget": (29, 194, "(0, 4096, 0o1666)"),
    "msgget": (68, 186, "(1, 0o1666)"),
    "clone into a user namespace": (56, 220, "(0x10000011, 0, 0, 0, 0)"),
}


@pytest.mark.parametrize("name", CALLS)
async def test_it_is_refused(attack: Attack, name: str) -> None:
    x86, arm, arguments = CALLS[name]
    code = f"""
import ctypes, errno, platform
libc = ctypes.CDLL(None, use_errno=True)
number = {x86} if platform.machine() == "x86_64" else {arm}
result = libc.syscall(number, *{arguments})
print(result, errno.errorcode.get(ctypes.get_errno()))
"""
    assert (await attack(code)).stdout == "-1 EPERM\n"


async def test_another_machines_calls_kill(attack: Attack) -> None:
    code = """
import ctypes
print(ctypes.CDLL(None).syscall(0x40000000 + 39))
"""
    result = await attack(code)
    assert result.status is RunStatus.ERROR and result.stdout == ""
