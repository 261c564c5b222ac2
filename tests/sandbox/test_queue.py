"""Fairness of the waiting line."""

import asyncio

import pytest

from agentrl.sandbox.queue import FairQueue, QueueFullError


async def test_owners_take_turns() -> None:
    queue: FairQueue[int] = FairQueue(limit=100)
    served: list[str] = []

    async def wait(owner: str, name: str) -> None:
        item = await queue.take(owner)
        served.append(name)
        queue.give(item)

    tasks = [asyncio.create_task(wait("greedy", f"g{n}")) for n in range(4)]
    tasks.append(asyncio.create_task(wait("modest", "m")))
    await asyncio.sleep(0)
    queue.give(1)
    await asyncio.gather(*tasks)
    assert served == ["g0", "m", "g1", "g2", "g3"]


async def test_the_line_is_bounded() -> None:
    queue: FairQueue[int] = FairQueue(limit=1)
    waiting = asyncio.create_task(queue.take("a"))
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError, match=r"sandbox\.max_queue"):
        await queue.take("b")
    queue.give(5)
    assert await waiting == 5


async def test_an_item_given_to_a_cancelled_waiter_is_passed_on() -> None:
    queue: FairQueue[int] = FairQueue(limit=10)
    first = asyncio.create_task(queue.take("a"))
    second = asyncio.create_task(queue.take("a"))
    await asyncio.sleep(0)
    queue.give(7)
    first.cancel()
    assert await second == 7
    assert queue.waiting == 0


async def test_failing_reaches_every_waiter() -> None:
    queue: FairQueue[int] = FairQueue(limit=10)
    waiters = [asyncio.create_task(queue.take(str(n))) for n in range(3)]
    await asyncio.sleep(0)
    queue.fail(ValueError("gone"))
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert [str(r) for r in results] == ["gone"] * 3
