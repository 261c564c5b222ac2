"""Places are given in order, pass on when a waiter is cancelled, and a line that stands is told."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from agentrl.errors import InfraError
from agentrl.places import Places
from agentrl.waits import open_waits


def one_place(held_s: float = 60.0) -> Places:
    return Places(1, "queue: a place", remedy="raise the limit", held_s=held_s)


async def started(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    task = asyncio.create_task(work)
    await asyncio.sleep(0.01)
    return task


async def test_who_waits_is_let_in_in_order_and_named_meanwhile() -> None:
    places, order = one_place(), []

    async def hold(name: str) -> None:
        async with places.place(f"episode {name}"):
            order.append(name)

    async with places.place("episode 0"):
        tasks = [await started(hold(name)) for name in "abc"]
        assert [wait.waiter for wait in open_waits()] == ["episode a", "episode b", "episode c"]
    await asyncio.gather(*tasks)
    assert (order, open_waits()) == (["a", "b", "c"], [])


async def test_a_line_that_stands_is_an_error_with_its_remedy() -> None:
    places = one_place(held_s=0.05)
    async with places.place("episode 0"):
        with pytest.raises(InfraError, match=r"episode 1 waited .* for 0\.05 s; raise the limit"):
            async with places.place("episode 1"):
                raise AssertionError
    async with asyncio.timeout(1), places.place("episode 2"):
        pass


async def test_a_line_that_moves_is_waited_in_for_longer() -> None:
    places, began = one_place(held_s=0.3), time.monotonic()

    async def hold() -> None:
        async with places.place("episode"):
            await asyncio.sleep(0.15)

    await asyncio.gather(*(hold() for _ in range(4)))
    assert time.monotonic() - began > 0.3


async def test_a_place_given_to_whoever_is_cancelled_is_passed_on() -> None:
    places = one_place()

    async def hold() -> None:
        async with places.place("episode"):
            await asyncio.sleep(60)

    async with places.place("episode 0"):
        first, second = await started(hold()), await started(hold())
        second.cancel()  # in the line
        await asyncio.wait([second])
    first.cancel()  # in the instant in which it got the place
    await asyncio.wait([first])
    async with asyncio.timeout(1), places.place("episode 3"):
        pass
