"""Named waits are in the registry while they last, whatever ends them."""

import asyncio
from contextlib import suppress

import pytest

from agentrl import waits
from agentrl.errors import InfraError
from agentrl.waits import DeadlineError, bounded, open_waits, waiting, within


def test_a_wait_is_listed_while_its_body_runs() -> None:
    with waiting("disk: traces", "step 3", remedy="free it", deadline_s=5.0):
        (wait,) = open_waits()
        assert (wait.resource, wait.waiter, wait.deadline_s) == ("disk: traces", "step 3", 5.0)
        assert wait.age_s >= 0
    assert open_waits() == []


def test_a_wait_that_fails_is_listed_no_more() -> None:
    with pytest.raises(ValueError), waiting("tool", "episode 1", remedy="none"):
        raise ValueError
    assert open_waits() == []


def test_the_oldest_wait_comes_first() -> None:
    with waiting("a", "step 1", remedy=""), waiting("b", "step 2", remedy=""):
        assert [wait.resource for wait in open_waits()] == ["a", "b"]


async def test_a_bounded_wait_ends_at_its_deadline_with_names_and_remedy() -> None:
    with pytest.raises(InfraError, match=r"wake: step 4 waited .* of 0.01 s; restart it"):
        await bounded(
            asyncio.sleep(60), "engine: wake", "step 4", remedy="restart it", deadline_s=0.01
        )
    assert open_waits() == []


async def test_a_time_out_of_the_work_itself_passes_as_it_is() -> None:
    async def work() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await bounded(work(), "engine", "step 4", remedy="", deadline_s=60)


async def test_a_wait_knows_its_task() -> None:
    with waiting("a", "step 1", remedy=""):
        assert open_waits()[0].task is asyncio.current_task()


def test_work_that_swallows_its_cancellation_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(waits, "CLEAN_UP_S", 0.05)

    async def cling() -> None:
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    async def program() -> None:
        with pytest.raises(DeadlineError, match="tool: episode 1 waited"):
            await within(cling(), "tool", "episode 1", remedy="mend it", deadline_s=0.05)

    asyncio.run(program())  # which cancels what is left, and waits for it
    assert "tool of episode 1 goes on after its cancellation" in caplog.text


async def test_who_is_cancelled_while_waiting_cancels_the_work_and_awaits_its_clean_up() -> None:
    diary = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            diary.append("cleaned up")

    waiter = asyncio.create_task(within(work(), "tool", "episode 1", remedy="", deadline_s=60))
    await asyncio.sleep(0.01)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert diary == ["cleaned up"]
    assert open_waits() == []
