"""Infrastructure errors are tried again; nothing else is."""

import pytest

from agentrl import retry
from agentrl.errors import InfraError, PluginError
from agentrl.retry import retried


class Flaky:
    """Fails with each of `errors`, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "fine"


@pytest.fixture(autouse=True)
def bounds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The longest that each pause may have been; nothing is waited for."""
    seen: list[float] = []

    def longest(low: float, high: float) -> float:
        seen.append(high)
        return low

    monkeypatch.setattr(retry.random, "uniform", longest)
    return seen


async def test_what_succeeds_at_once_is_asked_once(bounds: list[float]) -> None:
    assert await retried(Flaky(), retries=2) == ("fine", 1)
    assert bounds == []


async def test_the_attempt_that_succeeds_is_numbered() -> None:
    assert await retried(Flaky(InfraError("one")), retries=2) == ("fine", 2)


async def test_the_last_attempts_error_is_raised() -> None:
    flaky = Flaky(InfraError("one"), InfraError("two"), InfraError("three"))
    with pytest.raises(InfraError, match="two"):
        await retried(flaky, retries=1)
    assert len(flaky.errors) == 1


async def test_another_error_is_not_tried_again() -> None:
    flaky = Flaky(PluginError("a bug"))
    with pytest.raises(PluginError):
        await retried(flaky, retries=2)


async def test_pauses_double_up_to_a_bound(bounds: list[float]) -> None:
    await retried(Flaky(*(InfraError("down") for _ in range(8))), retries=8)
    assert bounds == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
