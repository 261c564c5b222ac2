"""Stateful sessions: state, last expression, time-outs, interrupts, files, ends."""

import asyncio

import pytest

from agentrl.contracts.sandbox import RunStatus, Sandbox
from agentrl.errors import ToolError

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_state_is_kept_and_the_last_expression_shown(sandbox: Sandbox) -> None:
    session = await sandbox.open_session()
    assert (await session.run_cell("x = 20")).stdout == ""
    result = await session.run_cell("print('a')\nx + 1")
    assert (result.status, result.stdout) == (RunStatus.OK, "a\n21\n")
    await session.close()


async def test_an_error_leaves_the_state(sandbox: Sandbox) -> None:
    session = await sandbox.open_session()
    result = await session.run_cell("y = 5\n1 / 0")
    assert result.status is RunStatus.ERROR
    assert "ZeroDivisionError" in result.stderr and "1 / 0" in result.stderr
    assert (await session.run_cell("y")).stdout == "5\n"
    await session.close()


async def test_a_cell_that_times_out_is_interrupted_and_the_state_kept(sandbox: Sandbox) -> None:
    session = await sandbox.open_session()
    await session.run_cell("z = 1")
    result = await session.run_cell("while True: pass", timeout_s=0.3)
    assert result.status is RunStatus.TIMEOUT
    assert (await session.run_cell("z")).stdout == "1\n"
    await session.close()


async def test_a_cell_that_ignores_the_interrupt_dies_with_its_session(sandbox: Sandbox) -> None:
    session = await sandbox.open_session()
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    assert (await session.run_cell(code, timeout_s=0.3)).status is RunStatus.TIMEOUT
    with pytest.raises(ToolError, match="session has ended"):
        await session.run_cell("1")
    await session.close()


async def test_interrupt_stops_the_running_cell(sandbox: Sandbox) -> None:
    session = await sandbox.open_session()
    cell = asyncio.create_task(session.run_cell("import time; time.sleep(30)"))
    await asyncio.sleep(0.3)
    await session.interrupt()
    result = await cell
    assert result.status is RunStatus.ERROR
    assert "KeyboardInterrupt" in result.stderr
    assert (await session.run_cell("1 + 1")).stdout == "2\n"
    await session.close()


async def test_memory_is_limited(sandbox: Sandbox) -> None:
    session = await sandbox.open_session(memory_mb=64)
    result = await session.run_cell("x = bytearray(10**9)")
    assert result.status is RunStatus.MEMORY_LIMIT
    await session.close()


async def test_output_is_limited_per_cell(sandbox: Sandbox) -> None:
    session = await sandbox.open_session()
    result = await session.run_cell("while True: print('x' * 1000)")
    assert result.status is RunStatus.OUTPUT_LIMIT
    assert (await session.run_cell("print('ok')")).stdout == "ok\n"
    await session.close()


async def test_files_go_in_and_come_out(sandbox: Sandbox) -> None:
    session = await sandbox.open_session()
    result = await session.run_cell(
        "open('b', 'w').write(open('a').read() * 2)", files={"a": b"12"}, fetch_files=("b",)
    )
    assert result.files == {"b": b"1212"}
    await session.close()


async def test_sessions_are_apart(sandbox: Sandbox) -> None:
    sessions = [await sandbox.open_session() for _ in range(6)]
    for number, session in enumerate(sessions):
        await session.run_cell(f"n = {number}; open('n', 'w').write(str(n))")
    results = [await session.run_cell("n, open('n').read()") for session in sessions]
    assert [r.stdout for r in results] == [f"({n}, '{n}')\n" for n in range(6)]
    for session in sessions:
        await session.close()
        await session.close()


async def test_a_session_that_exits_is_told(sandbox: Sandbox) -> None:
    session = await sandbox.open_session()
    result = await session.run_cell("import os; os._exit(7)")
    assert (result.status, result.exit_code) == (RunStatus.ERROR, 7)
    with pytest.raises(ToolError, match="session has ended"):
        await session.run_cell("1")
    await session.close()
