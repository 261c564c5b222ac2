from typing import Any

import pytest

from agentrl.contracts.interaction import BaseInteraction
from agentrl.contracts.media import Media
from agentrl.contracts.sample import Sample
from agentrl.contracts.tool import BaseTool, FunctionSchema, ToolSchema
from agentrl.errors import ConfigError
from agentrl.plugins.check import check_samples, choose_interaction, offered_tools


class Tool(BaseTool):
    def __init__(self, name: str) -> None:
        super().__init__({}, ToolSchema(function=FunctionSchema(name=name)))

    async def execute(self, instance_id: str, parameters: dict[str, Any], **kwargs: Any) -> Any:
        raise AssertionError


class Interaction(BaseInteraction):
    async def generate_response(self, instance_id: str, messages: Any, **kwargs: Any) -> Any:
        raise AssertionError


TOOLS: dict[str, BaseTool] = {name: Tool(name) for name in ("calc", "find")}
ONE: dict[str, BaseInteraction] = {"kind": Interaction({})}
TWO = ONE | {"stern": Interaction({})}
SHOWN = [
    {"type": "text", "text": "What?"},
    {"type": "image", "image": Media.of("image", b"x")},
    {"type": "video", "video": Media.of("video", b"x")},
]


def sample(**fields: Any) -> Sample:
    prompt: Any = [{"role": "user", "content": fields.pop("content", "go")}]
    return Sample(prompt=prompt, origin="rows.jsonl, row 7", **fields)


def test_good_samples_pass() -> None:
    good = [
        sample(),
        sample(tool_selection=[]),
        sample(tool_selection=["find"], tools_kwargs={"calc": {}}),
        sample(interaction_kwargs={"name": "kind"}),
        sample(agent_name="tool_agent"),
        sample(agent_name="single_turn_agent"),
    ]
    check_samples(iter(good), TOOLS, ONE)


@pytest.mark.parametrize(
    ("fields", "interactions", "message"),
    [
        (
            {"tool_selection": ["calc", "clac"]},
            ONE,
            r"tool_selection names \['clac'\]; the tools are \['calc', 'find'\]: correct",
        ),
        ({"tools_kwargs": {"clac": {}}}, ONE, r"tools_kwargs names \['clac'\]; the tools are"),
        (
            {"interaction_kwargs": {"name": "kin"}},
            ONE,
            r"interaction_kwargs.name is 'kin'; expected one of \['kind'\]",
        ),
        ({}, TWO, r"interaction_kwargs.name is None; expected one of \['kind', 'stern'\]"),
        ({"agent_name": "react_agent"}, ONE, r"agent_name is 'react_agent', .* not supported yet"),
        ({"content": SHOWN}, ONE, r"has images in its prompt \(2 in all\); .* no eyes yet: use"),
        ({"content": SHOWN[2:]}, ONE, r"has videos in its prompt \(1 in all\)"),
    ],
)
def test_a_sample_that_cannot_be_rolled_out_is_named(
    fields: dict[str, Any], interactions: dict[str, BaseInteraction], message: str
) -> None:
    fine = sample(interaction_kwargs={"name": "kind"})
    with pytest.raises(ConfigError, match=f"^rows.jsonl, row 7:? {message}"):
        check_samples([fine, sample(**fields)], TOOLS, interactions)


def test_a_sample_of_no_row_is_named_by_its_index() -> None:
    made = Sample(prompt=[], index=3, data_source="mine", tool_selection=["x"])
    with pytest.raises(ConfigError, match=r"^sample 3 of 'mine': tool_selection"):
        check_samples([made], TOOLS, {})


def test_a_selection_is_offered_in_its_own_order() -> None:
    assert list(offered_tools(sample(), TOOLS)) == ["calc", "find"]
    assert list(offered_tools(sample(tool_selection=["find", "calc"]), TOOLS)) == ["find", "calc"]
    assert list(offered_tools(sample(tool_selection=[]), TOOLS)) == []


def test_the_only_interaction_needs_no_name() -> None:
    assert choose_interaction(sample(), ONE) is ONE["kind"]
    assert choose_interaction(sample(), {}) is None
    stern = sample(interaction_kwargs={"name": "stern"})
    assert choose_interaction(stern, TWO) is TWO["stern"]
