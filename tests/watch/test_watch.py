"""Whoever waits for long, or holds the event loop, is told while it happens."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from agentrl.config.watch import WatchConfig
from agentrl.errors import ConfigError
from agentrl.plugins.reference import load_plugin
from agentrl.waits import open_waits, waiting
from agentrl.watch.status import Status
from agentrl.watch.telling import tell
from agentrl.watch.watch import Watch

FAST = WatchConfig(tell_after_s=0.3, lag_s=0.2, status_every_s=0.2)
SLEEPER = """
import time
def hold(seconds):
    time.sleep(seconds)
"""


@contextmanager
def aged(*ages_s: float, resource: str = "engine: generate") -> Iterator[None]:
    with ExitStack() as stack:
        for number in range(len(ages_s)):
            stack.enter_context(
                waiting(resource, f"episode {number}", remedy="restart it", deadline_s=600.0)
            )
        for wait, age_s in zip(open_waits(), ages_s, strict=True):
            wait.began = time.monotonic() - age_s
        yield


async def until(said: list[str], what: str) -> str:
    async with asyncio.timeout(10):
        while True:
            for line in said:
                if what in line:
                    return line
            await asyncio.sleep(0.05)


def test_many_alike_are_told_in_one_line() -> None:
    with aged(61.0, 50.0, 3.0):
        (line,) = tell(open_waits(), 60.0)
    assert line == (
        "2 episodes wait for engine: generate, the oldest (episode 0) 61 s already "
        "(given up at 600 s): restart it"
    )


def test_a_wait_is_told_once_and_again_at_twice_the_age() -> None:
    with aged(61.0):
        (wait,) = open_waits()
        assert len(tell(open_waits(), 60.0)) == 1
        assert tell(open_waits(), 60.0) == []
        wait.began -= 60
        assert tell(open_waits(), 60.0) == []
        wait.began -= 2
        assert tell(open_waits(), 60.0) == [
            "episode 0 waits for engine: generate, 123 s already (given up at 600 s): restart it"
        ]


async def test_a_long_wait_is_told_while_the_event_loop_is_blocked() -> None:
    said: list[str] = []
    with Watch(FAST, said.append), waiting("sandbox: run", "episode 7", remedy="look at docker"):
        await asyncio.sleep(0)
        time.sleep(1.0)
        assert [line for line in said if "episode 7 waits for sandbox: run" in line]


async def test_the_plugin_that_holds_the_loop_is_named(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    hold = load_plugin(f"{tmp_path / 'sleeper.py'}:hold")
    said: list[str] = []
    with Watch(FAST, said.append) as watch:
        await asyncio.sleep(0.2)
        with waiting("tool 'sleeper': execute", "episode 1", remedy=""):
            hold(0.8)
        line = await until(said, "stood still")
        metrics = watch.metrics()
    assert "tool 'sleeper': execute" in line
    assert f"{tmp_path / 'sleeper.py'}:4 in hold" in line
    assert 0.5 < metrics["perf/loop_lag_max_s"] < 5


async def test_status_tells_the_phase_and_the_oldest_waits(tmp_path: Path) -> None:
    where = ("eval", 3)
    with (
        Watch(FAST, lambda line: None, folder=tmp_path, progress=lambda: where),
        waiting("disk: traces", "step 3", remedy="free it", deadline_s=60.0),
    ):
        async with asyncio.timeout(10):
            while (status := Status.read(tmp_path)) is None or not status.waits:
                await asyncio.sleep(0.05)
    assert (status.phase, status.step, status.num_waits) == ("eval", 3, 1)
    assert status.waits[0].resource == "disk: traces"


async def test_a_reporter_that_raises_does_not_end_the_watch() -> None:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        raise ValueError("no screen")

    with Watch(FAST, say), waiting("a", "step 1", remedy=""):
        await until(said, "step 1 waits")
        await asyncio.sleep(0.6)
    assert len(said) > 1


def test_a_damaged_status_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{}")
    with pytest.raises(ConfigError, match="expected a run's status"):
        Status.read(tmp_path)
