import asyncio
import time

import pytest

from agentrl.clients.border import RefusedError, TransientError
from agentrl.clients.retry import attempts, deadline


async def tries(error: Exception, *, retries: int, deadline_s: float) -> tuple[int, float]:
    """Return how often a failing request was made, and the seconds that it took."""
    made, began = 0, time.monotonic()
    with pytest.raises(type(error)) as caught:
        async for attempt in attempts(retries, deadline_s=deadline_s):
            with attempt:
                made += 1
                raise error
    assert caught.value is error
    return made, time.monotonic() - began


async def test_only_what_may_pass_is_tried_again() -> None:
    assert (await tries(TransientError("busy"), retries=2, deadline_s=60))[0] == 3
    assert (await tries(RefusedError("no", status=404), retries=2, deadline_s=60))[0] == 1


async def test_the_pause_is_at_least_what_the_server_asked_for() -> None:
    made, took_s = await tries(TransientError("busy", retry_after_s=0.3), retries=1, deadline_s=60)
    assert (made, took_s >= 0.3) == (2, True)


async def test_a_pause_beyond_the_deadline_is_not_begun() -> None:
    made, took_s = await tries(TransientError("busy", retry_after_s=30), retries=5, deadline_s=20)
    assert (made, took_s < 10) == (1, True)


async def test_the_deadline_names_its_setting_and_what_was_wrong() -> None:
    with pytest.raises(TransientError, match=r"request: no answer within a\.key=0\.05 \(a: gone\)"):
        async with deadline("request", 0.05, key="a.key", troubles=lambda: "a: gone"):
            await asyncio.sleep(10)
    with pytest.raises(TimeoutError, match="another's"):
        async with deadline("request", 10, key="a.key"):
            raise TimeoutError("another's")
