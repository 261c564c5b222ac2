from pathlib import Path
from typing import Any

import pytest
import yaml

from agentrl.config.run import TaskConfig
from agentrl.data.task import load_task
from agentrl.errors import ConfigError
from agentrl.plugins.registry import load_interactions, load_tools

PLUGINS = '''
from typing import Annotated, TypedDict, Required, NotRequired
from pydantic import Field
from agentrl.contracts.tool import BaseTool, ToolResponse
from agentrl.contracts.interaction import BaseInteraction

class Answered(BaseTool):
    async def execute(self, instance_id, parameters, **kwargs):
        return ToolResponse(text="x"), 0.0, {}

class Arguments(TypedDict):
    code: Annotated[str, Field(description="What to run.")]
    seconds: NotRequired[float]

class CodeRunnerTool(BaseTool):
    """Runs
    code.

    More about it."""
    async def execute(self, instance_id, parameters: Arguments, **kwargs):
        return ToolResponse(text="x"), 0.0, {}

class Picky(Answered):
    def __init__(self, config, tool_schema):
        assert "key" in config, "picky needs a key"
        super().__init__(config, tool_schema)

class Halfway:
    def __init__(self, config, tool_schema): pass
    async def execute(self, instance_id, parameters, **kwargs): pass

class GuessInteraction(BaseInteraction):
    async def generate_response(self, instance_id, messages, **kwargs):
        return True, "", 0.0, {}

def function(): pass
'''
SCHEMA = {
    "type": "function",
    "function": {
        "name": "calc",
        "description": "Computes.",
        "parameters": {"type": "object", "properties": {"x": {"type": "number", "minimum": 0}}},
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plugins.py").write_text(PLUGINS)
    return tmp_path


def entry(name: str = "Answered", **fields: Any) -> dict[str, Any]:
    return {"class_name": f"plugins.py:{name}", "tool_schema": SCHEMA, **fields}


def test_tools_come_by_name_in_order_with_config_and_schema(folder: Path) -> None:
    second = {"function": {**SCHEMA["function"], "name": "second"}}  # type: ignore[dict-item]
    path = folder / "tools.yaml"
    path.write_text(yaml.safe_dump({"tools": [entry(config={"k": 1}), entry(tool_schema=second)]}))
    tools = load_tools(str(path))
    assert list(tools) == ["calc", "second"]
    assert tools["calc"].config == {"k": 1}
    assert tools["calc"].get_openai_tool_schema().for_template() == SCHEMA


def test_a_tools_file_finds_its_plugins_beside_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "deep").mkdir()
    (folder / "plugins.py").rename(folder / "deep" / "plugins.py")
    (folder / "deep" / "tools.yaml").write_text(yaml.safe_dump({"tools": [entry()]}))
    monkeypatch.chdir("/")
    assert list(load_tools("deep/tools.yaml", folder)) == ["calc"]


def test_nothing_configured_is_nothing_loaded() -> None:
    assert load_tools(None) == {}
    assert load_interactions(None) == {}


def test_the_bare_function_form_of_a_schema_is_taken(folder: Path) -> None:
    tools = load_tools([entry(tool_schema=SCHEMA["function"])], folder)
    assert tools["calc"].tool_schema.for_template() == SCHEMA


def test_an_inferred_schema_describes_the_tool_and_its_arguments(folder: Path) -> None:
    (tool,) = load_tools([{"class_name": "plugins.py:CodeRunnerTool"}], folder).values()
    function = tool.tool_schema.function
    assert (function.name, function.description) == ("code_runner", "Runs code.")
    assert function.parameters == {
        "type": "object",
        "properties": {
            "code": {"type": "string", "description": "What to run."},
            "seconds": {"type": "number"},
        },
        "required": ["code"],
    }


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry(), entry()], "entry 2: a tool named 'calc' is there already"),
        ([entry(clas_name="x")], "entry 1: unknown key `clas_name`; did you mean 'class_name'"),
        ([entry("Answerd")], r"entry 1: .*has no 'Answerd'; its classes are \[.*'Answered'"),
        ([entry("function")], "must be a class with the methods .* it is <function"),
        ([entry("Halfway")], r"it lacks \['create'\]"),
        ([entry("Picky")], "entry 1: Picky does not take its config: .*picky needs a key"),
        ([entry(tool_schema={"function": {}})], "`tool_schema.function.name`: Field required"),
        (
            [entry(tool_schema={"function": {"name": "two words"}})],
            "`tool_schema.function.name`: String should match",
        ),
        (
            [entry(tool_schema={"function": {"name": "x", "paramters": {}}})],
            "`tool_schema.function.paramters`: Extra inputs",
        ),
        (
            [entry(tool_schema={"function": {"name": "x", "parameters": {"type": "objekt"}}})],
            "`tool_schema.function.parameters.type` is not valid JSON Schema: 'objekt'",
        ),
        (
            [
                entry(
                    tool_schema={
                        "function": {
                            "name": "x",
                            "parameters": {
                                "type": "object",
                                "properties": {"p": {"$ref": "#/$defs/Nowhere"}},
                            },
                        }
                    }
                )
            ],
            "`tool_schema.function.parameters` is not valid JSON Schema: .*/\\$defs/Nowhere",
        ),
        ("nosuch.yaml", "tools file .*nosuch.yaml: No such file"),
        ({"tools": []}, "expected a list of entries"),
        (["x"], "expected a list of entries"),
    ],
)
def test_a_wrong_tool_is_one_error_that_names_its_entry(
    folder: Path, entries: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_tools(entries, folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("interaction: []", r"expected the one key `tools`, got \['interaction'\]"),
        ("tools: []\nmore: 1", r"expected the one key `tools`, got \['more', 'tools'\]"),
        ("- a", "expected the one key `tools`, got list"),
        ("tools: {a: 1}", "expected a list of entries"),
        ("tools: [", "is not valid YAML"),
        ("1: x\na: y", "expected the one key `tools`"),
    ],
)
def test_a_tools_file_of_the_wrong_form_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "tools.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_tools("tools.yaml", folder)


def test_interactions_are_named_after_their_class_or_their_entry(folder: Path) -> None:
    guess = {"class_name": "plugins.py:GuessInteraction"}
    found = load_interactions([guess, {**guess, "name": "other", "config": {"k": 1}}], folder)
    assert {name: found[name].name for name in found} == {"guess": "guess", "other": "other"}
    assert found["other"].config == {"k": 1, "name": "other"}


def test_a_task_is_given_its_data_and_seed(folder: Path) -> None:
    (folder / "task.py").write_text(
        "from agentrl.contracts.task import BaseTask\n"
        "class Mine(BaseTask):\n"
        "    def samples(self, split): return []\n"
    )
    config = TaskConfig(class_name="task.py:Mine", config={"k": 1}, train="t.jsonl")
    task = load_task(config, base=folder, seed=7)
    assert (task.config, task.train, task.test, task.seed) == ({"k": 1}, "t.jsonl", None, 7)


def test_a_class_that_is_no_task_is_refused(folder: Path) -> None:
    config = TaskConfig(class_name="plugins.py:Answered")
    with pytest.raises(
        ConfigError, match=r"task 'plugins.py:Answered'.*lacks \['samples', 'score'\]"
    ):
        load_task(config, base=folder, seed=0)
