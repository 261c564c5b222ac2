from contextlib import aclosing

import pytest
from tests_support import Adder, Teacher, make_rollout, said, sample

from agentrl.contracts.trajectory import Termination
from agentrl.engines.scripted import ScriptedEngine
from agentrl.errors import ConfigError
from agentrl.templates.render import Renderer


async def test_groups_come_with_their_position_and_own_seeds(renderer: Renderer) -> None:
    engine = ScriptedEngine(said(renderer, "x"))
    rollout = make_rollout(renderer, [], engine=engine)
    found = {}
    async with (
        rollout,
        aclosing(
            rollout.run_groups([sample(), sample(), sample()], name="s", size=2, seed=5)
        ) as groups,
    ):
        async for position, group in groups:
            found[position] = group.id
    assert found == {0: "s-0", 1: "s-1", 2: "s-2"}
    seeds = {request.sampling.seed for request in engine.requests}
    assert len(seeds) == 6


async def test_leaving_early_releases_what_was_begun(renderer: Renderer) -> None:
    tool = Adder()
    rollout = make_rollout(renderer, said(renderer, "x"), tool)
    async with rollout:
        async with aclosing(rollout.run_groups([sample()] * 5, name="s", size=2, seed=0)) as groups:
            async for _ in groups:
                break
        assert tool.live == set()


async def test_an_unknown_interaction_is_one_configuration_error(renderer: Renderer) -> None:
    rollout = make_rollout(renderer, said(renderer, "x"), teacher=Teacher())
    async with rollout:
        with pytest.raises(ConfigError, match=r"'nobody'.*\['teacher'\]"):
            await rollout.run_group(
                sample(interaction_kwargs={"name": "nobody"}), group_id="g", size=3, seed=0
            )


async def test_an_unknown_tool_selection_is_one_configuration_error(renderer: Renderer) -> None:
    rollout = make_rollout(renderer, said(renderer, "x"), Adder())
    async with rollout:
        with pytest.raises(ConfigError, match=r"tool_selection names \['x'\].*\['add'\]"):
            await rollout.run_group(sample(tool_selection=["x"]), group_id="g", size=2, seed=0)


async def test_an_engine_that_fails_is_data(renderer: Renderer) -> None:
    rollout = make_rollout(renderer, [])
    async with rollout:
        group = await rollout.run_group(sample(), group_id="g", size=2, seed=0)
    assert {t.termination for t in group.trajectories} == {Termination.INFRA_ERROR}
    assert group.kept == ()


async def test_a_group_says_how_it_was_sampled_and_with_what(renderer: Renderer) -> None:
    rollout = make_rollout(renderer, said(renderer, "x"), Adder())
    async with rollout:
        group = await rollout.run_group(sample(), group_id="g", size=2, seed=3)
    assert group.sampling == {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
    assert group.template == renderer.template_digest
    assert len({t.seed for t in group.trajectories}) == 2
    assert group.trajectories[0].tool_schemas[0]["function"]["name"] == "add"
