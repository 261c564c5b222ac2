"""What a chat template writes is read back as the calls it was given, in every own format."""

from collections.abc import Callable
from typing import Any

import pytest

from agentrl.rollout.formats.registry import FORMATS
from agentrl.rollout.formats.turn import ToolFormat

FAMILIES = [
    "hermes",
    "qwen3_xml",
    "qwen3_xml on one line",
    "llama3_json",
    "llama3_json tagged",
    "pythonic",
    "pythonic tagged",
    "pythonic of LFM2",
    "glm45",
]
Write = Callable[..., str]
Schemas = dict[str, dict[str, Any]]
ARGUMENTS = {
    "nested": {
        "filters": {"any": [{"year": {"from": 1999}}, {"tags": [[], {}]}]},
        "tags": [1, [2]],
    },
    "unicode": {"query": "naïve – 日本語 🎲\u2028", "filters": {"città": "Zürich"}},
    "quotes": {"query": """it's "quoted" \\ 'both' \\n '''"""},
    "lines": {"query": "def f(x):\n    return [x, {'a': \"b\"}]"},
    "types": {"limit": -3, "ratio": 1.5e-7, "exact": True, "note": None, "filters": {"x": None}},
    "strings that look typed": {"query": "5", "note": "five"},
    "markup": {"query": "<b>&amp;</b> [f(a=1)]; {} <think>no</think> </tool_call> </parameter>"},
    "empty": {},
    "empty values": {"query": "", "filters": {}, "tags": []},
}
TWO = [("search", {"query": "a; b", "limit": 2}), ("get-weather", {"city": "Zürich"})]


def format_of(family: str) -> ToolFormat:
    return FORMATS[family.split()[0]]()


def read(family: str, text: str, schemas: Schemas) -> list[tuple[str, dict[str, Any]]]:
    calls = format_of(family).parse(text, schemas=schemas).calls
    assert [call.error for call in calls] == [None] * len(calls)
    return [(call.name, call.arguments) for call in calls]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
def test_a_rendered_call_is_read_back(
    family: str, arguments: dict[str, Any], write: Write, schemas: Schemas
) -> None:
    text = write(family, [("search", arguments)])
    assert read(family, text, schemas) == [("search", arguments)]


@pytest.mark.parametrize("family", [name for name in FAMILIES if "one line" not in name])
def test_newlines_at_a_values_ends_are_kept(family: str, write: Write, schemas: Schemas) -> None:
    calls = [("search", {"query": "\n two \n"})]
    assert read(family, write(family, calls), schemas) == calls


@pytest.mark.parametrize("family", FAMILIES)
def test_types_survive_exactly(family: str, write: Write, schemas: Schemas) -> None:
    text = write(family, [("search", {"limit": 1, "ratio": 1.0, "exact": False, "query": "1"})])
    ((_, arguments),) = read(family, text, schemas)
    assert {key: type(value) for key, value in arguments.items()} == {
        "limit": int,
        "ratio": float,
        "exact": bool,
        "query": str,
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_several_calls_with_text_around_them(family: str, write: Write, schemas: Schemas) -> None:
    before, after = 'The set {1} and [2, 3], "quoted":', "That is all."
    text = f"{write(family, TWO, content=before)}\n{after}"
    parsed = format_of(family).parse(text, turn=7, schemas=schemas)
    assert [(c.id, c.name, c.arguments, c.error) for c in parsed.calls] == [
        ("call07000", *TWO[0], None),
        ("call07001", *TWO[1], None),
    ]
    assert parsed.content.split() == f"{before} {after}".split()
    assert len(parsed.message()["tool_calls"]) == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_calls_inside_thinking_are_ignored(family: str, write: Write, schemas: Schemas) -> None:
    thought, said = write(family, TWO), write(family, TWO[:1])
    for text in (f"<think>{thought}</think>{said}", f"opened before {thought}</think>{said}"):
        assert read(family, text, schemas) == TWO[:1]
    assert format_of(family).parse(f"<think>{thought}", schemas=schemas).calls == ()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_call_cut_off_in_its_middle_is_an_error_and_those_before_it_stand(
    family: str, write: Write, schemas: Schemas
) -> None:
    text = write(family, TWO)
    parsed = format_of(family).parse(text[: text.index("rich")], schemas=schemas)
    whole, cut = parsed.calls
    assert (whole.name, whole.arguments, whole.error) == (*TWO[0], None)
    assert "cut off" in str(cut.error)
    assert "expected" in str(cut.error)
    assert text[text.index("get-weather") : text.index("rich")] in parsed.content


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_at_any_place_never_makes_another_call(
    family: str, write: Write, schemas: Schemas
) -> None:
    text = write(family, [*TWO, ("search", ARGUMENTS["nested"])], content="Well: ")
    expected = [*TWO, ("search", ARGUMENTS["nested"])]
    for end in range(len(text)):
        calls = format_of(family).parse(text[:end], schemas=schemas).calls
        readable = [(call.name, call.arguments) for call in calls if call.error is None]
        assert readable == expected[: len(readable)], text[:end]
        assert len(calls) - len(readable) <= 1, text[:end]
        if '"year"' in text[:end]:
            assert len(readable) == 3 or calls[-1].error is not None, text[:end]
