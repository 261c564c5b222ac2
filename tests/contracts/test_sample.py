from typing import Any

import pytest

from agentrl.contracts.sample import Sample
from agentrl.errors import ConfigError

USER = {"role": "user", "content": "2+2?"}


def read(**row: Any) -> Sample:
    return Sample.from_row(row, index=4, source="data.jsonl")


def test_a_verl_row_is_read_whole() -> None:
    sample = read(
        data_source="gsm8k",
        prompt=[USER],
        agent_name="tool_agent",
        reward_model={"style": "rule", "ground_truth": "4"},
        extra_info={
            "index": 7,
            "split": "train",
            "tools_kwargs": {"calc": {"create_kwargs": {"ground_truth": "4"}}},
            "interaction_kwargs": {"name": "teacher", "query": "2+2?"},
            "tool_selection": ["calc"],
        },
    )
    assert sample == Sample(
        prompt=[USER],
        index=7,
        data_source="gsm8k",
        ground_truth="4",
        agent_name="tool_agent",
        tools_kwargs={"calc": {"create_kwargs": {"ground_truth": "4"}}},
        interaction_kwargs={"name": "teacher", "query": "2+2?"},
        tool_selection=["calc"],
        extra_info={"index": 7, "split": "train"},
        columns=sample.columns,
    )


@pytest.mark.parametrize("prompt", ["2+2?", [USER], (USER,)])
def test_a_trl_row_is_read(prompt: Any) -> None:
    sample = read(prompt=prompt, answer="4")
    assert sample == Sample(
        prompt=[USER],
        index=4,
        data_source="data.jsonl",
        ground_truth="4",
        columns={"prompt": prompt, "answer": "4"},
    )


def test_the_nones_that_arrow_adds_are_dropped() -> None:
    sample = read(
        prompt=[{**USER, "tool_calls": None}],
        reward_model=None,
        extra_info={
            "index": None,
            "tools_kwargs": {"a": {"create_kwargs": {"x": 1, "y": None}}, "b": None},
            "interaction_kwargs": None,
            "tool_selection": None,
        },
    )
    assert sample.prompt == [USER]
    assert sample.index == 4
    assert sample.tools_kwargs == {"a": {"create_kwargs": {"x": 1}}}
    assert sample.interaction_kwargs == {}
    assert sample.tool_selection is None


@pytest.mark.parametrize("index", ["train-7", None])
def test_an_index_that_is_no_number_gives_way_to_the_rows_own(index: Any) -> None:
    sample = read(prompt="x", extra_info={"index": index})
    assert sample.index == 4
    assert sample.extra_info == {"index": index}


def test_an_empty_selection_offers_no_tools() -> None:
    assert read(prompt="x", extra_info={"tool_selection": []}).tool_selection == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "2+2?", "answer": "4"}, r"no `prompt`.*\['answer', 'question'\]"),
        ({"prompt": []}, "no `prompt`"),
        ({"prompt": "  "}, "no `prompt`"),
        ({"prompt": 5}, "`prompt` must be a list of messages or a string, got int"),
        ({"prompt": USER}, "`prompt` must be a list of messages or a string, got dict"),
        ({"prompt": ["hi"]}, "needs `role` and `content`, got 'hi'"),
        ({"prompt": [{"role": "user"}]}, "needs `role` and `content`"),
        ({"prompt": "x", "reward_model": "4"}, "`reward_model` must be a mapping .* got str"),
        ({"prompt": "x", "extra_info": "{}"}, "`extra_info` must be a mapping, got str"),
        (
            {"prompt": "x", "extra_info": {"tool_selection": "calc"}},
            "`extra_info.tool_selection` must be a list of tool names, got 'calc'",
        ),
        (
            {"prompt": "x", "extra_info": {"tools_kwargs": {"calc": 3}}},
            r"`extra_info.tools_kwargs.calc` must be a mapping, got int",
        ),
    ],
)
def test_a_row_of_the_wrong_form_is_named_by_its_number(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^data.jsonl, row 5: .*{message}"):
        read(**row)
