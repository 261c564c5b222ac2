"""Named waits are in the registry while they last, whatever ends them."""

import asyncio

import pytest

from agentrl.errors import InfraError
from agentrl.waits import bounded, open_waits, waiting


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
