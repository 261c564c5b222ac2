"""Output without end, on either stream."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_it_meets_the_output_limit(attack: Attack, stream: str) -> None:
    result = await attack(f"import sys\nwhile True: sys.{stream}.write('x' * 65536)")
    assert result.status is RunStatus.OUTPUT_LIMIT
    assert result.truncated == (stream,)
    assert len(result.stdout) + len(result.stderr) == 64 * 1024


async def test_output_by_children_counts(attack: Attack) -> None:
    code = """
import os
for _ in range(4): os.fork()
while True: os.write(1, b"x" * 4096)
"""
    assert (await attack(code)).status is RunStatus.OUTPUT_LIMIT
