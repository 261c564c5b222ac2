"""No text makes a format raise, and what it reads can always be kept."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from agentrl.contracts.call import ParsedTurn
from agentrl.rollout.formats.registry import FORMATS
from agentrl.rollout.formats.turn import call_id

OWN = ["hermes", "qwen3_xml", "llama3_json", "pythonic", "glm45", "harmony"]
PIECES = [
    *("<tool_call>", "</tool_call>", "<think>", "</think>", "<function=search>", "</function>"),
    *("<parameter=limit>", "</parameter>", "<parameter=query>", "<|python_tag|>", "; ", "\n"),
    *("<arg_key>limit</arg_key>", "<arg_value>", "</arg_value>", "search<arg_key>", "<|message|>"),
    *("<|channel|>analysis", "<|end|><|start|>assistant", " to=functions.search", "<|call|>"),
    *("<|python_start|>", "<|python_end|>", "[", "]", "(", ")", "{", "}", "[search(", "limit="),
    *('"name": "search"', '"parameters": {}', '{"name": ', '"', "'", "'''", "\\", ",", ":", "="),
    *("1", "-", "1e999", "NaN", "null", "True", "\ud83d", "\\ud83d", "\0", "b'x'", "9" * 5000),
    *("[" * 70, "{" * 70, '{"a":' * 70, "-" * 3000, "1+" * 3000, "0x" + "f" * 6000, "f'{x}'"),
]
CALLS = [
    ("search", {"query": "a 'b' \"c\"", "filters": {"x": [1, None, {"y": True}]}, "limit": 3}),
    ("get-weather", {"city": "Zürich"}),
]


def check(parsed: ParsedTurn) -> None:
    assert [call.id for call in parsed.calls] == [call_id(0, i) for i in range(len(parsed.calls))]
    for call in parsed.calls:
        json.dumps(call.arguments, allow_nan=False, ensure_ascii=False).encode()
        assert call.error is None or (call.arguments == {} and "tool call" in call.error)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("with_schemas", [True, False])
def test_a_soup_of_the_formats_pieces_is_read_without_raising(
    name: str, with_schemas: bool, schemas: dict[str, Any]
) -> None:
    generator = random.Random(f"soup of {name}")
    for _ in range(1500):
        text = "".join(generator.choices(PIECES, k=generator.randint(1, 14)))
        shown = schemas if with_schemas else None
        check(FORMATS[name]().parse(text, turn=0, schemas=shown))


@pytest.mark.parametrize("name", OWN)
def test_a_rendered_text_with_random_faults_is_read_without_raising(
    name: str, write: Callable[..., str], schemas: dict[str, Any]
) -> None:
    generator = random.Random(f"faults of {name}")
    whole = write(name, CALLS, content="Let me see. ")
    for _ in range(1500):
        text = whole
        for _ in range(generator.randint(1, 4)):
            start = generator.randrange(len(text) + 1)
            end = start + generator.choice((0, 0, 1, 3, 20))
            text = text[:start] + generator.choice(["", *PIECES]) + text[end:]
        check(FORMATS[name]().parse(text, turn=0, schemas=schemas))


@pytest.mark.parametrize("name", OWN)
def test_every_beginning_and_every_end_of_a_text_is_read_without_raising(
    name: str, write: Callable[..., str], schemas: dict[str, Any]
) -> None:
    whole = write(name, CALLS, content="Let me see. ")
    for i in range(len(whole)):
        check(FORMATS[name]().parse(whole[:i], turn=0, schemas=schemas))
        check(FORMATS[name]().parse(whole[i:], turn=0, schemas=schemas))


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("piece", PIECES, ids=range(len(PIECES)))
def test_one_piece_a_thousand_times_is_read_without_raising(name: str, piece: str) -> None:
    text = piece * (1000 if len(piece) < 50 else 10)
    check(FORMATS[name]().parse(text, turn=0))
    check(FORMATS[name]().parse(f"{text}</think>", turn=0))
