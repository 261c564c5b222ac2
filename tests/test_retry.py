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
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.0)


async def test_what_succeeds_at_once_is_the_first_attempt() -> None:
    assert await retried(Flaky(), retries=2) == ("fine", 1)


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
