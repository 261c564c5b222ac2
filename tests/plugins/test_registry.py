from pathlib import Path

import pytest
import yaml

from agentrl.errors import ConfigError
from agentrl.paths import shipped_root
from agentrl.plugins.reference import load_plugin
from agentrl.plugins.registry import load_interactions, load_tools
from agentrl.plugins.schema import violations

TOOL_YAML = """
tools:
  - class_name: "own.py:Untyped"
    config:
      type: native
    tool_schema:
      type: "function"
      function:
        name: "calc_gsm8k_reward"
        description: "A tool for calculating the reward of gsm8k."
        parameters:
          type: "object"
          properties:
            answer:
              type: "string"
              description: "The model's answer to the GSM8K math problem, must be a digits"
          required: ["answer"]
"""
OWN_TOOL = '''
from typing import Annotated, Any, TypedDict
from pydantic import BaseModel, Field
from agentrl import BaseTool, ToolResponse

class Arguments(TypedDict, total=False):
    text: Annotated[str, Field(description="What to say.")]
    times: int

class Model(BaseModel):
    path: str
    deep: dict[str, list[int]] = {}

class EchoTool(BaseTool):
    """Says it again.

    Not shown to the model.
    """
    async def execute(self, instance_id: str, parameters: Arguments, **kwargs: Any):
        return ToolResponse(text="x"), 0.0, {}

class ReadFile(EchoTool):
    """Reads."""
    async def execute(self, instance_id: str, parameters: Model, **kwargs: Any):
        return ToolResponse(text="x"), 0.0, {}

class Untyped(EchoTool):
    """Says nothing of its arguments."""
    async def execute(self, instance_id, parameters, **kwargs):
        return ToolResponse(text="x"), 0.0, {}
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN_TOOL)
    return tmp_path


def tools_yaml(folder: Path, *entries: object) -> str:
    (folder / "tools.yaml").write_text(yaml.safe_dump({"tools": list(entries)}))
    return str(folder / "tools.yaml")


def test_a_missing_schema_is_inferred_from_a_typed_dict(folder: Path) -> None:
    (tool,) = load_tools(tools_yaml(folder, {"class_name": "own.py:EchoTool"})).values()
    function = tool.tool_schema.function
    assert (tool.name, function.description) == ("echo", "Says it again.")
    assert function.parameters["properties"]["text"] == {
        "type": "string",
        "description": "What to say.",
    }
    assert function.parameters.get("required", []) == []


def test_a_missing_schema_is_inferred_from_a_model(folder: Path) -> None:
    (tool,) = load_tools(tools_yaml(folder, {"class_name": "own.py:ReadFile"})).values()
    assert tool.name == "read_file"
    assert tool.tool_schema.function.parameters["required"] == ["path"]


def test_a_schema_that_cannot_be_inferred_says_what_to_annotate(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"annotate `parameters` of Untyped\.execute"):
        load_tools(tools_yaml(folder, {"class_name": "own.py:Untyped"}))


def test_every_violation_is_listed(folder: Path) -> None:
    (folder / "tools.yaml").write_text(TOOL_YAML)
    (tool,) = load_tools(str(folder / "tools.yaml")).values()
    assert violations(tool.tool_schema, {}) == ["arguments: 'answer' is a required property"]
    assert violations(tool.tool_schema, {"answer": 3}) == ["answer: 3 is not of type 'string'"]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"class_name": "own.py:EchoTool", "confg": {}}, "did you mean 'config'"),
        ({"config": {}}, "missing key `class_name`"),
        ({"class_name": "own.py:Arguments"}, "it lacks"),
        ({"class_name": "nowhere.py:X"}, "no such file"),
        ({"class_name": "no.such.module.X"}, "neither importable nor shipped"),
        ({"class_name": "plain"}, "entry point"),
        (
            {"class_name": "own.py:EchoTool", "tool_schema": {"type": "function"}},
            "tool_schema.function",
        ),
    ],
)
def test_a_wrong_entry_is_one_error_that_names_it(folder: Path, entry: object, why: str) -> None:
    with pytest.raises(ConfigError, match="entry 1") as caught:
        load_tools(tools_yaml(folder, entry))
    assert why in str(caught.value)


def test_a_file_without_the_key_is_refused(folder: Path) -> None:
    (folder / "tools.yaml").write_text("tool: []")
    with pytest.raises(ConfigError, match=r"expected the one key `tools`, got \['tool'\]"):
        load_tools(str(folder / "tools.yaml"))


def test_an_interaction_without_a_name_is_called_after_its_class(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text(
        "class WeatherInteraction:\n"
        "    def __init__(self, config):\n        self.name = config['name']\n"
        "    async def start_interaction(self, instance_id=None, **kwargs): ...\n"
        "    async def generate_response(self, instance_id, messages, **kwargs): ...\n"
        "    async def calculate_score(self, instance_id, **kwargs): ...\n"
        "    async def finalize_interaction(self, instance_id, **kwargs): ...\n"
    )
    (tmp_path / "i.yaml").write_text("interaction:\n  - class_name: chat.py:WeatherInteraction\n")
    assert list(load_interactions(str(tmp_path / "i.yaml"))) == ["weather"]
    entry = {"class_name": f"{tmp_path}/chat.py:WeatherInteraction"}
    with pytest.raises(ConfigError, match="'weather' is there already"):
        load_interactions([entry, entry])


def test_two_files_of_one_name_live_side_by_side(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tool.py").write_text(f"class X:\n    source = {name!r}\n")
    found = [load_plugin("tool.py:X", base=tmp_path / name).source for name in ("a", "b")]
    assert found == ["a", "b"]
    assert load_plugin("tool.py:X", base=tmp_path / "a") is load_plugin(f"{tmp_path}/a/tool.py:X")


def test_a_package_that_a_plugin_needs_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(ConfigError, match="not_installed_anywhere"):
        load_plugin("p.py:X", base=tmp_path)


def test_importable_modules_come_before_shipped_files() -> None:
    assert load_plugin("pathlib.Path") is Path
    assert (shipped_root() / "agentrl").is_dir() or shipped_root().name == "_shipped"
