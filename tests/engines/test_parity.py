"""The parity probe, by an engine whose every token has one log-probability."""

import math

import pytest

from agentrl.config.engine import ParityConfig
from agentrl.engines.parity import PROBE_TOKENS, ParityProbe
from agentrl.engines.scripted import ScriptedEngine
from agentrl.errors import RunError


def probe(*ours: float, config: ParityConfig | None = None, exact: bool = True) -> ParityProbe:
    async def score(token_ids: list[int]) -> list[float]:
        assert len(token_ids) == len(ours) + 1
        return list(ours)

    text = range(len(ours) + 1)
    return ParityProbe(text, config or ParityConfig(), score=score, exact=exact)


async def test_the_largest_difference_is_the_metric() -> None:
    engine = ScriptedEngine([], logprob=-1.0)
    checked = await probe(-1.0005, -0.9998, -1.0).check(engine, 3)
    assert checked == {"engine/parity": pytest.approx(0.0005)}


async def test_more_than_the_tolerance_stops_the_run() -> None:
    engine = ScriptedEngine([], logprob=-1.0)
    with pytest.raises(RunError, match=r"version 7, .* by up to 0\.25, .*tolerance=0\.001"):
        await probe(-1.0, -1.25).check(engine, 7)


async def test_where_kernels_round_more_is_allowed_unless_the_configuration_says() -> None:
    engine = ScriptedEngine([], logprob=-1.0)
    assert await probe(-1.25, exact=False).check(engine, 1) == {"engine/parity": 0.25}
    with pytest.raises(RunError, match=r"tolerance=0\.1"):
        await probe(-1.25, exact=False, config=ParityConfig(tolerance=0.1)).check(engine, 1)


@pytest.mark.parametrize("ours", [(math.nan, -1.0), (-1.0, math.nan)])
async def test_a_nan_is_no_agreement_wherever_it_stands(ours: tuple[float, float]) -> None:
    engine = ScriptedEngine([], logprob=-1.0)
    with pytest.raises(RunError, match="by up to nan"):
        await probe(*ours).check(engine, 1)


async def test_it_probes_after_the_first_of_every_so_many_syncs() -> None:
    engine = ScriptedEngine([], logprob=-1.0)
    checks = probe(-1.0, config=ParityConfig(every=3))
    probed = [bool(await checks.check(engine, version)) for version in range(7)]
    assert probed == [True, False, False, True, False, False, True]


async def test_it_can_be_switched_off() -> None:
    engine = ScriptedEngine([], logprob=-9.0)
    assert await probe(-1.0, config=ParityConfig(every=0)).check(engine, 1) == {}


async def test_an_engine_of_the_trainers_own_module_is_not_probed() -> None:
    async def score(token_ids: list[int]) -> list[float]:
        raise AssertionError("nobody asks")

    nothing = ParityProbe([1, 2], None, score=score, exact=True)
    assert await nothing.check(ScriptedEngine([], logprob=-9.0), 1) == {}


async def test_no_more_than_the_beginning_of_a_text_is_scored() -> None:
    async def score(token_ids: list[int]) -> list[float]:
        return [0.0] * (len(token_ids) - 1)

    long = ParityProbe(range(9 * PROBE_TOKENS), ParityConfig(), score=score, exact=True)
    assert await long.check(ScriptedEngine([]), 1) == {"engine/parity": 0.0}
