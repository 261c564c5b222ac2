import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import pytest

from agentrl.errors import ConfigError
from agentrl.rollout.formats.registry import FORMATS, MARKERS, choose_format

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: no parsers to use"
    ),
    pytest.mark.filterwarnings("ignore"),  # of vLLM's imports
]
Write = Callable[..., str]
Schemas = dict[str, dict[str, Any]]
SEARCH = {"query": 'it\'s "naïve" – 日本語', "limit": 3, "filters": {"any": [{"year": 1999}, None]}}
TWO = [("search", SEARCH), ("get_weather", {"city": "Zürich"})]
FAMILIES = ["hermes", "qwen3_xml", "llama3_json", "pythonic", "mistral"]
WITH_TEXT = ["hermes", "qwen3_xml", "llama3_json", "mistral"]


@pytest.fixture
def vllm_schemas(schemas: Schemas) -> Schemas:
    """The tools' schemas; vLLM's pythonic parser takes Python's names only."""
    return {name.replace("-", "_"): schema for name, schema in schemas.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_rendered_calls_are_read_back(
    family: str, write: Write, vllm_schemas: Schemas, marked_tokenizer: Any
) -> None:
    chosen = choose_format(f"vllm:{family}", chat_template=None, tokenizer=marked_tokenizer)
    for calls in (TWO[:1], TWO):
        parsed = chosen.parse(write(family, calls), turn=2, schemas=vllm_schemas)
        assert [(c.id, c.name, c.arguments, c.error) for c in parsed.calls] == [
            (f"call0200{i}", name, arguments, None) for i, (name, arguments) in enumerate(calls)
        ]
        assert parsed.content == ""


@pytest.mark.parametrize("family", WITH_TEXT)
def test_text_before_a_call_and_calls_inside_thinking_are_told_apart(
    family: str, write: Write, vllm_schemas: Schemas, marked_tokenizer: Any
) -> None:
    chosen = choose_format(f"vllm:{family}", chat_template=None, tokenizer=marked_tokenizer)
    for thought in ("<think>", "opened before"):
        text = f"{thought}{write(family, TWO)}</think>" + write(family, TWO[1:])
        parsed = chosen.parse(text, schemas=vllm_schemas)
        assert [(c.name, c.arguments, c.error) for c in parsed.calls] == [(*TWO[1], None)]
    assert chosen.parse(f"<think>{write(family, TWO)}").calls == ()
    assert chosen.parse(" just text ").message() == {"role": "assistant", "content": "just text"}


@pytest.mark.parametrize("family", ["hermes", "llama3_json tagged", "mistral"])
def test_a_call_that_vllm_leaves_in_the_content_is_a_call_with_an_error(
    family: str,
    write: Write,
    marked_tokenizer: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = family.split()[0]
    chosen = choose_format(f"vllm:{name}", chat_template=None, tokenizer=marked_tokenizer)
    whole = write(family, TWO[:1])
    with caplog.at_level(logging.INFO):
        parsed = chosen.parse(f"So: {whole[: whole.index('year')]}")
    (call,) = parsed.calls
    assert f"not in the format '{name}'" in str(call.error)
    assert parsed.content == f"So: {whole[: whole.index('year')]}"
    assert caplog.records == []


def test_arguments_that_json_cannot_hold_are_a_call_with_an_error(marked_tokenizer: Any) -> None:
    chosen = choose_format("vllm:hermes", chat_template=None, tokenizer=marked_tokenizer)
    for value, why in (('{"a": NaN}', "not valid JSON"), ("[1]", "must be an object, got list")):
        text = f'<tool_call>{{"name": "search", "arguments": {value}}}</tool_call>'
        (call,) = chosen.parse(text).calls
        assert (call.name, call.arguments) == ("search", {})
        assert why in str(call.error)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_beginning_of_a_text_makes_a_parser_raise(
    family: str, write: Write, vllm_schemas: Schemas, marked_tokenizer: Any
) -> None:
    chosen = choose_format(f"vllm:{family}", chat_template=None, tokenizer=marked_tokenizer)
    text = write(family, TWO)
    for end in range(0, len(text), 3):
        for call in chosen.parse(text[:end], schemas=vllm_schemas).calls:
            assert call.error is None or call.arguments == {}


@pytest.mark.parametrize("name", ["vllm:hermes", "vllm:qwen3_xml", "vllm:pythonic", "mistral"])
def test_a_parsers_own_failure_is_a_call_with_an_error(
    name: str, marked_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = choose_format(name, chat_template=None, tokenizer=marked_tokenizer)

    def fail(self: Any, text: str, request: Any) -> None:
        raise IndexError("out of range")

    monkeypatch.setattr(chosen._parser_class, "extract_tool_calls", fail)
    (call,) = chosen.parse("[f(a=1)]").calls
    assert "IndexError: out of range" in str(call.error)


def test_a_tokenizer_without_the_formats_tokens_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"tool_format 'jamba'.*refuses.*special tokens.*hermes"):
        choose_format("jamba", chat_template=None, tokenizer=tokenizer)
    with pytest.raises(ConfigError, match=r"python_tag.*special tokens"):
        choose_format("vllm:llama3_json", chat_template=None, tokenizer=tokenizer)


def test_an_unknown_name_lists_what_there_is(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"'nonsense' is unknown.*hermes, qwen3_xml.*mistral"):
        choose_format("nonsense", chat_template=None, tokenizer=tokenizer)


def test_every_format_that_auto_recognises_is_ours_or_vllms() -> None:
    from vllm.tool_parsers import ToolParserManager

    known = {*FORMATS, *ToolParserManager.list_registered()}
    assert [name for name, _ in MARKERS if name not in known] == []


def test_auto_takes_vllms_parser_where_we_have_none(
    template: Callable[[str], str], marked_tokenizer: Any
) -> None:
    chosen = choose_format("auto", chat_template=template("mistral"), tokenizer=marked_tokenizer)
    assert chosen.name == "mistral"
