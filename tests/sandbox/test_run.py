"""What every walled backend promises about one execution."""

import pytest

from agentrl.contracts.sandbox import RunRequest, RunStatus, Sandbox
from agentrl.errors import ToolError

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_prints_are_returned(sandbox: Sandbox) -> None:
    result = await sandbox.run(RunRequest(code="print(1 + 1)"))
    assert (result.status, result.stdout, result.stderr) == (RunStatus.OK, "2\n", "")
    assert (result.exit_code, result.signal, result.attempts) == (0, None, 1)
    assert result.sandbox_id and result.duration_s > 0 and result.peak_memory_mb > 0


async def test_stdin_is_read(sandbox: Sandbox) -> None:
    result = await sandbox.run(RunRequest(code="print(input()[::-1])", stdin="olleh\n"))
    assert result.stdout == "hello\n"


async def test_an_exception_is_the_programs_error_with_its_own_traceback(sandbox: Sandbox) -> None:
    result = await sandbox.run(RunRequest(code="def f():\n    return 1 / 0\nf()"))
    assert (result.status, result.exit_code) == (RunStatus.ERROR, 1)
    assert result.stderr.startswith("Traceback (most recent call last):\n  File ")
    assert "return 1 / 0" in result.stderr and "supervisor" not in result.stderr
    assert result.stderr.endswith("ZeroDivisionError: division by zero\n")


async def test_a_syntax_error_is_shown(sandbox: Sandbox) -> None:
    result = await sandbox.run(RunRequest(code="print("))
    assert result.status is RunStatus.ERROR
    assert "SyntaxError" in result.stderr


@pytest.mark.parametrize("code", [0, 3, 255])
async def test_exit_codes_pass(sandbox: Sandbox, code: int) -> None:
    result = await sandbox.run(RunRequest(code=f"import sys; sys.exit({code})"))
    assert result.exit_code == code
    assert result.ok == (code == 0)


async def test_sleeping_for_ever_times_out(sandbox: Sandbox) -> None:
    result = await sandbox.run(RunRequest(code="import time; time.sleep(60)", run_timeout_s=0.3))
    assert result.status is RunStatus.TIMEOUT


async def test_output_is_capped_and_what_came_first_is_kept(sandbox: Sandbox) -> None:
    code = "while True: print('x' * 99)"
    result = await sandbox.run(RunRequest(code=code, max_output_bytes=1000))
    assert result.status is RunStatus.OUTPUT_LIMIT
    assert result.truncated == ("stdout",)
    assert len(result.stdout) == 1000


async def test_invalid_utf8_is_replaced_and_flagged(sandbox: Sandbox) -> None:
    code = "import sys; sys.stdout.buffer.write(b'a\\xffb')"
    result = await sandbox.run(RunRequest(code=code))
    assert result.stdout == "a\ufffdb"
    assert result.truncated == ("invalid_utf8",)


async def test_each_run_starts_in_an_empty_directory(sandbox: Sandbox) -> None:
    code = "import os; print(os.listdir('.'), os.listdir('/tmp')); open('left', 'w').write('x')"
    for _ in range(4):
        result = await sandbox.run(RunRequest(code=code))
        assert result.stdout == "[] []\n", result.stderr


async def test_files_go_in_and_come_out(sandbox: Sandbox) -> None:
    request = RunRequest(
        code="data = open('in/a.bin', 'rb').read(); open('out.bin', 'wb').write(data[::-1])",
        files={"in/a.bin": b"\x00\x01\xff"},
        fetch_files=("out.bin", "missing"),
    )
    result = await sandbox.run(request)
    assert result.ok, result.stderr
    assert result.files == {"out.bin": b"\xff\x01\x00"}


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", "a//b"])
async def test_paths_outside_the_directory_are_refused(sandbox: Sandbox, path: str) -> None:
    with pytest.raises(ToolError, match="relative path"):
        await sandbox.run(RunRequest(code="", files={path: b""}))


async def test_a_module_among_the_files_can_be_imported(sandbox: Sandbox) -> None:
    result = await sandbox.run(RunRequest(code="import m; print(m.X)", files={"m.py": b"X = 7"}))
    assert result.stdout == "7\n"


async def test_memory_beyond_the_request_is_told(sandbox: Sandbox) -> None:
    result = await sandbox.run(RunRequest(code="x = bytearray(10**9)", memory_mb=64))
    assert result.status is RunStatus.MEMORY_LIMIT


async def test_daemons_are_killed_with_their_program(sandbox: Sandbox) -> None:
    code = """
import os, time
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
print("parent done")
"""
    result = await sandbox.run(RunRequest(code=code))
    assert (result.status, result.stdout) == (RunStatus.OK, "parent done\n")
    assert result.duration_s < 5


async def test_there_is_no_network_and_no_root(sandbox: Sandbox) -> None:
    code = """
import os, socket
try:
    socket.create_connection(("169.254.169.254", 80), timeout=2)
except OSError as error:
    print("offline")
print(os.getuid() != 0, os.listdir("/sys/class/net") if os.path.exists("/sys/class/net") else [])
try:
    open("/usr/x", "w")
except OSError as error:
    print("read-only")
"""
    result = await sandbox.run(RunRequest(code=code))
    assert result.stdout.splitlines()[0] == "offline"
    assert result.stdout.splitlines()[1] in ("True []", "True ['lo']")
    assert result.stdout.splitlines()[2] == "read-only"


async def test_an_unknown_language_is_the_callers_error(sandbox: Sandbox) -> None:
    with pytest.raises(ToolError, match="language 'cobol' is not known"):
        await sandbox.run(RunRequest(code="", language="cobol"))


async def test_bash_runs(sandbox: Sandbox) -> None:
    result = await sandbox.run(RunRequest(code="x=$(cat); echo $x$x", language="bash", stdin="ab"))
    assert result.stdout == "abab\n", result.stderr


async def test_more_memory_than_configured_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(ToolError, match=r"sandbox\.memory_mb"):
        await sandbox.run(RunRequest(code="", memory_mb=100_000))
