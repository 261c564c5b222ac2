"""Bytes that are no text."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_binary_output_is_replaced_and_flagged(attack: Attack) -> None:
    code = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 4)"
    result = await attack(code)
    assert result.status is RunStatus.OK
    assert result.truncated == ("invalid_utf8",)
    assert result.stdout.startswith("\x00\x01") and "\ufffd" in result.stdout


async def test_frames_and_control_characters_are_only_text(attack: Attack) -> None:
    code = 'print(\'\\x00\\x00\\x00\\x10{"op":"result"}\\x1b[2J\')'
    result = await attack(code)
    assert result.status is RunStatus.OK and "result" in result.stdout
