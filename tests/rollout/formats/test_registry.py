import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from agentrl.errors import ConfigError
from agentrl.rollout.formats.registry import FORMATS, MARKERS, choose_format, recognise_format

HERMES_2_PRO = '{"parameters": {{ p }}} <|start_header_id|> <tool_call>{"name": '
LLAMA_4 = "<|header_start|><|python_start|>{{ c }}<|python_end|>{{- '\"parameters\": ' }}"


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("hermes", "hermes"),
        ("qwen3_xml", "qwen3_xml"),
        ("qwen3_xml on one line", "qwen3_xml"),
        ("llama3_json", "llama3_json"),
        ("llama3_json tagged", "llama3_json"),
        ("pythonic", "pythonic"),
        ("pythonic tagged", "pythonic"),
        ("no tools", "hermes"),
    ],
)
def test_auto_goes_by_the_template(
    family: str, name: str, template: Callable[[str], str], marked_tokenizer: Any
) -> None:
    chosen = choose_format("auto", chat_template=template(family), tokenizer=marked_tokenizer)
    assert chosen.name == name


@pytest.mark.parametrize(
    ("template", "name"),
    [
        (HERMES_2_PRO, "hermes"),
        (LLAMA_4, "llama3_json"),
        ("<tool_call>{{ name }}<arg_key>{{ key }}</arg_key>", "glm45"),
        ("<seed:tool_call><function={{ name }}><parameter={{ key }}>", "seed_oss"),
        ("[TOOL_CALLS] [{{ calls }}]", "mistral"),
        ("<｜tool▁calls▁begin｜>{{ name }}\n```json\n{{ arguments }}", "deepseek_v3"),
        ("<｜tool▁calls▁begin｜>{{ name }}<｜tool▁sep｜>{{ arguments }}", "deepseek_v31"),
        ("as functools[...]: {{ calls }}", "phi4_mini_json"),
        ("{{ message.content }}", "hermes"),
        ("", "hermes"),
    ],
)
def test_the_most_telling_marker_decides(template: str, name: str) -> None:
    assert recognise_format(template) == name


def test_auto_without_a_template_of_its_own_goes_by_the_tokenizers(
    tokenizer: Any, template: Callable[[str], str]
) -> None:
    assert choose_format("auto", chat_template=None, tokenizer=tokenizer).name == "hermes"

    several = copy.copy(tokenizer)
    several.chat_template = {"default": "x", "tool_use": template("pythonic")}
    assert choose_format("auto", chat_template=None, tokenizer=several).name == "pythonic"


@pytest.mark.parametrize("name", FORMATS)
def test_our_own_formats_are_chosen_by_name_whatever_the_template(
    name: str, tokenizer: Any
) -> None:
    chosen = choose_format(name, chat_template=None, tokenizer=tokenizer)
    assert type(chosen) is FORMATS[name]
    assert FORMATS[chosen.name] is FORMATS[name]


@pytest.mark.parametrize("name", ["mistral", "vllm:hermes", "nonsense"])
def test_another_format_without_vllm_names_the_remedy(
    name: str, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ConfigError) as caught:
        choose_format(name, chat_template=None, tokenizer=tokenizer)
    message = str(caught.value)
    assert "rollout.tool_format" in message
    assert "hermes, qwen3_xml" in message
    assert "install agentrl[vllm]" in message


def test_formats_that_auto_knows_and_we_do_not_are_left_to_vllm() -> None:
    foreign = {name for name, _ in MARKERS} - set(FORMATS)
    assert {"mistral", "gemma4", "seed_oss"} <= foreign


def test_our_formats_need_neither_vllm_nor_torch() -> None:
    program = (
        "import sys, agentrl.rollout.formats.registry as r\n"
        "for name in r.FORMATS:\n"
        "    r.choose_format(name, chat_template='', tokenizer=None).parse('x')\n"
        "sys.exit(' '.join({'vllm', 'torch', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
