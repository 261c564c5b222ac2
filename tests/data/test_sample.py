import base64
from pathlib import Path
from typing import Any

import pytest

from agentrl.contracts.media import Media
from agentrl.contracts.message import text_of
from agentrl.contracts.sample import Sample
from agentrl.data.sample import read_sample
from agentrl.errors import ConfigError

USER = {"role": "user", "content": "2+2?"}


def read(**row: Any) -> Sample:
    return read_sample(row, index=4, source="data.jsonl")


CAT, DOG = Media.of("image", b"a cat"), Media.of("image", b"a dog")


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def image(media: Media) -> dict[str, Any]:
    return {"type": "image", "image": media}


def test_a_verl_row_is_read_whole() -> None:
    row: dict[str, Any] = dict(
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
    assert read(**row) == Sample(
        prompt=[USER],
        index=7,
        data_source="gsm8k",
        ground_truth="4",
        agent_name="tool_agent",
        tools_kwargs={"calc": {"create_kwargs": {"ground_truth": "4"}}},
        interaction_kwargs={"name": "teacher", "query": "2+2?"},
        tool_selection=["calc"],
        extra_info={"index": 7, "split": "train"},
        columns=row,
    )


@pytest.mark.parametrize("prompt", ["2+2?", [USER], (USER,)])
def test_a_trl_row_is_read(prompt: Any) -> None:
    sample = read(prompt=prompt, answer="4", level=3)
    assert (sample.prompt, sample.index, sample.ground_truth) == ([USER], 4, "4")
    assert (sample.data_source, sample.where) == ("data.jsonl", "data.jsonl, row 5")
    assert sample.columns == {"prompt": prompt, "answer": "4", "level": 3}


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


def test_markers_say_where_the_images_of_a_row_belong() -> None:
    prompt = [{"role": "user", "content": "<image>Is it <image>?"}]
    sample = read(prompt=prompt, images=[{"bytes": b"a cat", "path": None}, b"a dog"])
    assert sample.prompt[0]["content"] == [image(CAT), text("Is it "), image(DOG), text("?")]
    assert sample.media == (CAT, DOG)


def test_images_without_a_place_come_before_the_first_users_text() -> None:
    system = {"role": "system", "content": "Look."}
    sample = read(prompt=[system, USER], images=[b"a cat"])
    assert sample.prompt == [system, {"role": "user", "content": [image(CAT), text("2+2?")]}]


def test_parts_of_openai_and_trl_become_media(tmp_path: Path) -> None:
    (tmp_path / "dog.png").write_bytes(b"a dog")
    url = "data:image/png;base64," + base64.b64encode(b"a cat").decode()
    parts = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image", "text": None},
        {"type": "image", "image": f"{tmp_path}/dog.png"},
        {"type": "text", "text": "Which?", "image_url": None},
        {"type": "video", "video": b"a film"},
    ]
    sample = read(prompt=[{"role": "user", "content": parts}], images=[b"a cat"])
    film = Media.of("video", b"a film")
    assert sample.prompt[0]["content"] == [
        image(CAT), image(CAT), image(DOG), text("Which?"), {"type": "video", "video": film},
    ]  # fmt: skip
    assert text_of(sample.prompt[0]["content"]) == "Which?"


def test_parts_of_text_alone_are_text() -> None:
    content = [text("2+"), "2", text("?")]
    assert read(prompt=[{"role": "user", "content": content}]).prompt == [USER]


def test_a_marker_in_a_row_without_images_is_text() -> None:
    assert read(prompt="What does <image> mean?").prompt[0]["content"] == "What does <image> mean?"


def test_a_sample_shares_no_message_with_its_row() -> None:
    row = {"prompt": [dict(USER)]}
    read(**row).prompt[0]["content"] = "changed"
    assert row["prompt"] == [USER]


@pytest.mark.parametrize(
    ("content", "images", "message"),
    [
        ("<image><image>", [b"x"], "more places for images than the column `images` has entries"),
        ("<image>", [b"x", b"y"], "1 of its images or videos have no place in the prompt"),
        ("x", ["nowhere.png"], "its image cannot be read: .*nowhere.png"),
        ("x", ["https://a.example/b.png"], "its image cannot be read: expected .* got https"),
        ("x", [3], "expected the image as bytes, a path, a data: URL or a PIL image, got int"),
        ([{"type": "audio", "audio": "x"}], None, "the type 'audio'; expected text, image"),
        ([3], None, "`part` must be a mapping, got int"),
        (3, None, "`content` must be text or a list of parts, got int"),
    ],
)
def test_a_wrong_image_is_named_by_its_row(content: Any, images: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^data.jsonl, row 5: .*{message}"):
        read(prompt=[{"role": "user", "content": content}], images=images)
