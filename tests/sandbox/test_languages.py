"""Languages with compilers and runtimes of their own, where this machine has them."""

import shutil

import pytest

from agentrl.contracts.sandbox import RunRequest, RunResult, RunStatus, Sandbox
from agentrl.errors import ToolError

pytestmark = pytest.mark.asyncio(loop_scope="session")
CPP = "#include <iostream>\nint main() { int n; std::cin >> n; std::cout << n * 2; }"


async def run_or_skip(sandbox: Sandbox, request: RunRequest) -> RunResult:
    try:
        return await sandbox.run(request)
    except ToolError as error:
        if shutil.which("node") and shutil.which("g++") and sandbox.name == "bubblewrap":
            raise
        pytest.skip(str(error))


async def test_cpp_is_compiled_and_run(sandbox: Sandbox) -> None:
    result = await run_or_skip(sandbox, RunRequest(code=CPP, language="cpp", stdin="21"))
    assert (result.status, result.stdout) == (RunStatus.OK, "42"), result.stderr


async def test_a_compiler_error_is_told_apart(sandbox: Sandbox) -> None:
    result = await run_or_skip(sandbox, RunRequest(code="int main() { x; }", language="c++"))
    assert result.status is RunStatus.COMPILE_ERROR
    assert "was not declared" in result.stderr


async def test_compiling_has_a_time_out_of_its_own(sandbox: Sandbox) -> None:
    request = RunRequest(code=CPP, language="cpp", compile_timeout_s=0.02, stdin="1")
    assert (await run_or_skip(sandbox, request)).status is RunStatus.TIMEOUT


async def test_cpp_meets_the_memory_limit(sandbox: Sandbox) -> None:
    code = "#include <vector>\nint main() { std::vector<char> v(1ul << 33, 1); return v[5]; }"
    result = await run_or_skip(sandbox, RunRequest(code=code, language="cpp"))
    assert result.status is RunStatus.MEMORY_LIMIT


async def test_javascript_runs(sandbox: Sandbox) -> None:
    code = "console.log([3, 1, 2].sort().join('-'), require('fs').readdirSync('.').length)"
    result = await run_or_skip(sandbox, RunRequest(code=code, language="javascript"))
    assert (result.status, result.stdout) == (RunStatus.OK, "1-2-3 0\n"), result.stderr


async def test_javascript_meets_the_memory_limit(sandbox: Sandbox) -> None:
    code = "const a = []; for (;;) a.push(Buffer.alloc(1 << 20, 1))"
    request = RunRequest(code=code, language="javascript", run_timeout_s=5)
    assert (await run_or_skip(sandbox, request)).status is RunStatus.MEMORY_LIMIT
