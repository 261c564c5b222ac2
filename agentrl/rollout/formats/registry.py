"""Which class reads which `rollout.tool_format`, and which format a chat template asks for.

Any name that is not our own is looked up among vLLM's parsers. `vllm:NAME` takes vLLM's parser even
where we have one of that name.
"""

import logging
from typing import Any

from agentrl.rollout.formats.glm_xml import GlmXmlFormat
from agentrl.rollout.formats.harmony import HarmonyFormat
from agentrl.rollout.formats.hermes import HermesFormat
from agentrl.rollout.formats.llama_json import LlamaJsonFormat
from agentrl.rollout.formats.pythonic import PythonicFormat
from agentrl.rollout.formats.qwen_xml import QwenXmlFormat
from agentrl.rollout.formats.turn import ToolFormat
from agentrl.rollout.formats.vllm_parsers import open_vllm_format

AUTO, FALLBACK, VLLM_PREFIX = "auto", "hermes", "vllm:"

FORMATS: dict[str, type[ToolFormat]] = {
    "hermes": HermesFormat,
    "qwen3_xml": QwenXmlFormat,
    "qwen3_coder": QwenXmlFormat,
    "llama3_json": LlamaJsonFormat,
    "llama4_json": LlamaJsonFormat,
    "pythonic": PythonicFormat,
    "llama4_pythonic": PythonicFormat,
    "lfm2": PythonicFormat,
    "glm45": GlmXmlFormat,
    "glm47": GlmXmlFormat,
    "harmony": HarmonyFormat,
    "openai": HarmonyFormat,
}

MARKERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("harmony", ("<|channel|>", "<|call|>")),
    ("gemma4", ("<|tool_call>call:",)),
    ("lfm2", ("<|tool_call_start|>",)),
    ("muse_glimmer", ("<atem:",)),
    ("deepseek_v4", ("DSML", "tool_calls>")),
    ("deepseek_v32", ("DSML",)),
    ("minimax_m3", ("]<]minimax[>[",)),
    ("gigachat3", ("<|role_sep|>", "function call")),
    ("minicpm5", ("<function name=", "<param name=")),
    ("kimi_k3", ("<|open|>", "<|close|>")),
    ("apertus", ("<|tools_prefix|>",)),
    ("hunyuan_a13b", ("<tool_calls>[",)),
    ("seed_oss", ("<seed:tool_call>",)),
    ("minimax_m2", ("<minimax:tool_call>",)),
    ("glm45", ("<tool_call>", "<arg_key>")),
    ("qwen3_xml", ("<function=", "<parameter=")),
    ("hermes", ("<tool_call>",)),
    ("mistral", ("[TOOL_CALLS]",)),
    ("kimi_k2", ("<|tool_calls_section_begin|>",)),
    ("deepseek_v3", ("<｜tool▁calls▁begin｜>", "```json")),
    ("deepseek_v31", ("<｜tool▁calls▁begin｜>",)),
    ("olmo3", ("<function_calls>", "<functions>")),
    ("phi4_mini_json", ("functools[",)),
    ("internlm", ("<|action_start|>",)),
    ("pythonic", ("func_name1(",)),
    ("pythonic", ("<|python_start|>[",)),
    ("llama3_json", ('"parameters": ', "<|start_header_id|>")),
    ("llama3_json", ('"parameters": ', "<|header_start|>")),
    ("llama3_json", ("<|python_tag|>",)),
)
"""What a template must contain, all of it, to be of a format; the first line that fits decides."""

_log = logging.getLogger(__name__)


def choose_format(name: str, *, chat_template: str | None, tokenizer: Any) -> ToolFormat:
    """Return the format that `rollout.tool_format` names.

    `auto` goes by the template: `chat_template`, or the tokenizer's own where that is None. A
    template that shows no known format gets Hermes, in which calls are shown to a model whose
    template knows nothing of tools.

    Raises:
        ConfigError: there is no such format, or it cannot read this tokenizer's text.
    """
    if name == AUTO:
        name = recognise_format(chat_template or _own_template(tokenizer))
        _log.info("rollout.tool_format: auto is %s", name)
    if name in FORMATS:
        return FORMATS[name]()
    return open_vllm_format(name.removeprefix(VLLM_PREFIX), tokenizer, own=tuple(FORMATS))


def recognise_format(chat_template: str) -> str:
    """Return the format in which a template writes calls, by what it contains."""
    for name, markers in MARKERS:
        if all(marker in chat_template for marker in markers):
            return name
    return FALLBACK


def _own_template(tokenizer: Any) -> str:
    """Return the tokenizer's template; of several, the one for tools."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("tool_use") or template.get("default")
    return str(template or "")
