"""Chat templates in the shape of each family, and what they write for a message."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from agentrl.rollout.render import Renderer

START = "{%- for m in messages %}<|start|>{{ m.role }}\n{{ m.content or '' }}"
END = "<|end|>\n{% endfor %}{%- if add_generation_prompt %}<|start|>assistant\n{% endif %}"
TOOLS = "{%- if tools %}<|start|>system\n{{ tools | tojson }}<|end|>\n{% endif %}"
EACH_CALL = "{%- for c in m.tool_calls or [] %}{%- set f = c.function %}"
HERMES = (
    EACH_CALL + '<tool_call>\n{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}\n'
    "</tool_call>{% endfor %}"
)
QWEN_XML = (
    EACH_CALL + "\n<tool_call>\n<function={{ f.name }}>\n"
    "{%- for key, value in f.arguments.items() %}\n<parameter={{ key }}>\n"
    "{{ value if value is string else value | tojson if value is iterable else value | string }}\n"
    "</parameter>{% endfor %}\n</function>\n</tool_call>{% endfor %}"
)
QWEN_XML_ON_ONE_LINE = (
    EACH_CALL + "<tool_call><function={{ f.name }}>"
    "{%- for key, value in f.arguments.items() %}<parameter={{ key }}>"
    "{{ value if value is string else value | tojson }}</parameter>{% endfor %}"
    "</function></tool_call>{% endfor %}"
)
LLAMA_JSON = (
    EACH_CALL + '{{ "; " if not loop.first }}{"name": "{{ f.name }}", '
    "{{ '\"parameters\": ' }}{{ f.arguments | tojson }}}{% endfor %}{# <|start_header_id|> #}"
)
LLAMA_JSON_TAGGED = LLAMA_JSON.replace('{{ \'"; "', "{{ '\"").replace(
    '{"name"', '<|python_tag|>{"name"'
)
PYTHONIC = (
    "{# [func_name1(key=value)] #}{%- if m.tool_calls %}[{% endif %}" + EACH_CALL + "{{ f.name }}("
    "{%- for key, value in f.arguments.items() %}{{ key }}={{ value | tojson }}"
    "{{ ', ' if not loop.last }}{% endfor %}){{ ', ' if not loop.last }}{% endfor %}"
    "{%- if m.tool_calls %}]{% endif %}"
)
GLM = (
    EACH_CALL + "\n<tool_call>{{ f.name }}\n{%- for key, value in f.arguments.items() %}"
    "\n<arg_key>{{ key }}</arg_key>\n<arg_value>"
    "{{ value if value is string else value | tojson }}</arg_value>{% endfor %}\n</tool_call>"
    "{% endfor %}"
)
HARMONY = (
    "{%- for c in m.tool_calls or [] %}{%- set f = c.function %}"
    "{{ '<|end|><|start|>assistant' if not loop.first }} to=functions.{{ f.name }}"
    "<|channel|>commentary json<|message|>{{ f.arguments | tojson }}{% endfor %}"
)
PYTHONIC_TAGGED = PYTHONIC.replace("}[{", "}<|python_start|>[{").replace("}]{", "}]<|python_end|>{")
MISTRAL = (
    "{%- if m.tool_calls %}[TOOL_CALLS] [" + EACH_CALL + '{"name": "{{ f.name }}", '
    '"arguments": {{ f.arguments | tojson }}}{{ ", " if not loop.last }}{% endfor %}]{% endif %}'
)
FAMILIES = {
    "hermes": HERMES,
    "qwen3_xml": QWEN_XML,
    "qwen3_xml on one line": QWEN_XML_ON_ONE_LINE,
    "llama3_json": LLAMA_JSON,
    "llama3_json tagged": LLAMA_JSON_TAGGED,
    "pythonic": PYTHONIC,
    "pythonic tagged": PYTHONIC_TAGGED,
    "pythonic of LFM2": PYTHONIC_TAGGED.replace("|python_", "|tool_call_"),
    "glm45": GLM,
    "harmony": HARMONY,
    "mistral": MISTRAL,
    "no tools": "",
}
SPECIAL = ["<|python_tag|>", "<|python_start|>", "<|python_end|>", "[TOOL_CALLS]"]
SCHEMAS: dict[str, dict[str, Any]] = {
    "search": {
        "type": "object",
        "properties": {
            "query": {"type": "string"},
            "limit": {"type": "integer"},
            "ratio": {"type": "number"},
            "exact": {"type": "boolean"},
            "filters": {"type": "object"},
            "tags": {"type": "array"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
    },
    "get-weather": {"type": "object", "properties": {"city": {"type": "string"}}},
}

Call = tuple[str, dict[str, Any]]
Write = Callable[..., str]


@pytest.fixture(scope="session")
def marked_tokenizer(tokenizer: Any) -> Any:
    """A tokenizer that has the families' markers as special tokens."""
    marked = copy.deepcopy(tokenizer)
    marked.add_special_tokens({"additional_special_tokens": SPECIAL})
    return marked


@pytest.fixture(scope="session")
def template() -> Callable[[str], str]:
    """The chat template of a family."""
    return lambda family: TOOLS + START + FAMILIES[family] + END


@pytest.fixture(scope="session")
def write(marked_tokenizer: Any, template: Callable[[str], str]) -> Write:
    """What a policy writes to make `calls`: template, tokens, and the tokens' text again."""

    def write(family: str, calls: Sequence[Call], content: str = "") -> str:
        renderer = Renderer(marked_tokenizer, chat_template=template(family))
        function_calls = [
            {"id": f"c{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(calls)
        ]
        message = {"role": "assistant", "content": content, "tool_calls": function_calls}
        return renderer.decode(renderer.assistant(message, []))

    return write


@pytest.fixture(scope="session")
def schemas() -> dict[str, dict[str, Any]]:
    """The parameters of the tools that the tests call."""
    return SCHEMAS
