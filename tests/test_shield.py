import asyncio

import pytest

from agentrl.shield import quietly, shielded


async def test_clean_up_ends_however_often_its_caller_is_cancelled() -> None:
    done: list[str] = []

    async def clean_up() -> None:
        for _ in range(4):
            await asyncio.sleep(0)
        done.append("cleaned")

    task = asyncio.create_task(shielded(clean_up()))
    for _ in range(2):
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["cleaned"]


async def test_what_clean_up_raises_reaches_the_caller() -> None:
    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await shielded(fail())


async def test_a_plugins_clean_up_that_fails_or_hangs_is_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise KeyError("x")

    async def hang() -> None:
        await asyncio.Event().wait()

    await quietly(fail, "tool 'a' release", "episode 1", 1.0)
    await quietly(hang, "tool 'b' release", "episode 1", 0.01)
    assert [record.message for record in caplog.records] == [
        "tool 'a' release: KeyError: 'x'",
        "tool 'b' release timed out",
    ]
