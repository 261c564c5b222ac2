"""Classes written for verl, and for nothing at all, run unchanged behind our contracts."""

from pathlib import Path
from typing import Any

import pytest

from agentrl.contracts.interaction import BaseInteraction
from agentrl.contracts.media import Media
from agentrl.contracts.tool import BaseTool, ToolResponse
from agentrl.errors import ConfigError
from agentrl.plugins.registry import load_interactions, load_tools

# The shapes of verl's bases: schemas of its own, a schema asked of the class where the YAML has
# none, an interaction's score and end that take no instance.
BASES = """
import json
from uuid import uuid4
from pydantic import BaseModel

class Property(BaseModel):
    type: str
    description: str | None = None
    enum: list[str] | None = None

class Parameters(BaseModel):
    type: str
    properties: dict[str, Property]
    required: list[str]

class Function(BaseModel):
    name: str
    description: str
    parameters: Parameters
    strict: bool = False

class Schema(BaseModel):
    type: str
    function: Function

class Response(BaseModel):
    text: str | None = None
    image: list | None = None
    video: list | None = None

class TheirTool:
    def __init__(self, config, tool_schema):
        self.config = config
        self.tool_schema = tool_schema or self.get_openai_tool_schema()
        self.name = self.tool_schema.function.name
        json.dumps(self.tool_schema.model_dump(exclude_unset=True, exclude_none=True))
    def get_openai_tool_schema(self):
        return self.tool_schema
    async def create(self, instance_id=None, **kwargs):
        return instance_id or str(uuid4())
    async def execute(self, instance_id, parameters, **kwargs):
        return {"text": "state updated"}, 0.0, {}
    async def calc_reward(self, instance_id, **kwargs):
        return 0.0
    async def release(self, instance_id, **kwargs):
        pass

class TheirInteraction:
    def __init__(self, config):
        self.config, self.name = config, config.get("name", "interaction_agent")
    async def start_interaction(self, instance_id=None, **kwargs):
        return instance_id or str(uuid4())
    async def generate_response(self, instance_id, messages, **kwargs):
        return False, "go on", 0.8, {}
    async def calculate_score(self):
        return 0.0
    async def finalize_interaction(self):
        self.ended = True

"""
TOOLS = '''
class Early(TheirTool):
    """create -> str, execute -> (str, float, dict)"""
    def __init__(self, config, tool_schema):
        super().__init__(config, tool_schema)
        self.states = {}
    async def create(self, instance_id=None, ground_truth=None, **kwargs):
        instance_id = instance_id or str(uuid4())
        self.states[instance_id] = {"truth": ground_truth, "reward": 0.0}
        return instance_id
    async def execute(self, instance_id, parameters, **kwargs):
        state = self.states[instance_id]
        state["reward"] = float(parameters["answer"] == state["truth"])
        return f"reward={state['reward']}", 0.0 if state["reward"] else -0.05, {}
    async def calc_reward(self, instance_id, **kwargs):
        return self.states[instance_id]["reward"]
    async def release(self, instance_id, **kwargs):
        del self.states[instance_id]

class Late(Early):
    """create -> (str, response), execute -> (response, float, dict)"""
    async def create(self, instance_id=None, ground_truth=None, **kwargs):
        return await super().create(instance_id, ground_truth), Response()
    async def execute(self, instance_id, parameters, **kwargs):
        text, reward, metrics = await super().execute(instance_id, parameters)
        return Response(text=text), reward, metrics

class Declared(TheirTool):
    def get_openai_tool_schema(self):
        text = Property(type="string", enum=["a", "b"])
        parameters = Parameters(type="object", properties={"text": text}, required=["text"])
        return Schema(type="function", function=Function(
            name="declared", description="Says so itself.", parameters=parameters))

class Plain:
    def __init__(self, config, tool_schema):
        self.result = config.get("result")
    def create(self, instance_id=None):
        return None
    def execute(self, instance_id, parameters):
        return eval(self.result)

class Listing(TheirTool):
    async def execute(self, instance_id, parameters, **kwargs):
        return Response(text="x", image=[b"a cat"]), ["hit"], None
    async def calc_reward(self, instance_id, **kwargs):
        return ["hit"]
'''
INTERACTIONS = """
class Gsm8kInteraction(TheirInteraction):
    def __init__(self, config):
        super().__init__(config)
        self.states = {}
    async def start_interaction(self, instance_id=None, ground_truth=None, **kwargs):
        self.states[instance_id] = {"truth": ground_truth, "answer": ""}
        return instance_id
    async def generate_response(self, instance_id, messages, **kwargs):
        said = [m["content"] for m in messages if m["role"] == "assistant"]
        self.states[instance_id]["answer"] = said[-1]
        reward = await self.calculate_score(instance_id)
        return reward == 1.0, "right" if reward else "wrong", reward, {}
    async def calculate_score(self, instance_id, **kwargs):
        state = self.states[instance_id]
        return float(state["answer"] == state["truth"])
    async def finalize_interaction(self, instance_id, **kwargs):
        del self.states[instance_id]

class Short:
    def __init__(self, config):
        pass
    async def start_interaction(self, instance_id=None):
        pass
    async def generate_response(self, instance_id, messages):
        return [True, None, None]
"""
SCHEMA = {
    "type": "function",
    "function": {
        "name": "check",
        "description": "Checks.",
        "parameters": {
            "type": "object",
            "properties": {"answer": {"type": "string"}},
            "required": ["answer"],
        },
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "theirs.py").write_text(BASES + TOOLS + INTERACTIONS)
    return tmp_path


def tool_of(folder: Path, name: str, **entry: Any) -> Any:
    entry = {"tool_schema": SCHEMA, **entry, "class_name": f"theirs.py:{name}"}
    (tool,) = load_tools([entry], folder).values()
    assert isinstance(tool, BaseTool)
    return tool


def interaction_of(folder: Path, name: str) -> Any:
    entry = {"class_name": f"theirs.py:{name}", "name": "them"}
    (interaction,) = load_interactions([entry], folder).values()
    assert isinstance(interaction, BaseInteraction)
    return interaction


@pytest.mark.parametrize("name", ["Early", "Late"])
async def test_a_tool_of_verl_runs_unchanged(folder: Path, name: str) -> None:
    tool = tool_of(folder, name)
    await tool.open(None)
    created = await tool.create("e-0", ground_truth="72")
    wrong = await tool.execute("e-0", {"answer": "71"}, more=1)
    right = await tool.execute("e-0", {"answer": "72"})
    reward = await tool.calc_reward("e-0")
    await tool.release("e-0")
    await tool.close()
    assert created == ("e-0", ToolResponse())
    assert wrong == (ToolResponse(text="reward=0.0"), -0.05, {})
    assert right == (ToolResponse(text="reward=1.0"), 0.0, {})
    assert reward == 1.0
    assert tool.foreign.states == {}


@pytest.mark.parametrize("given", [None, SCHEMA])
def test_the_schema_that_a_class_declares_is_the_one_shown(folder: Path, given: Any) -> None:
    tool = tool_of(folder, "Declared", tool_schema=given)
    assert tool.name == "declared"
    assert tool.tool_schema.for_template() == {
        "type": "function",
        "function": {
            "name": "declared",
            "description": "Says so itself.",
            "parameters": {
                "type": "object",
                "properties": {"text": {"type": "string", "enum": ["a", "b"]}},
                "required": ["text"],
            },
        },
    }


def test_a_class_of_ours_may_declare_its_schema_too(folder: Path) -> None:
    (folder / "ours.py").write_text(
        "from agentrl import BaseTool, ToolSchema\n"
        "class Ours(BaseTool):\n"
        "    def get_openai_tool_schema(self):\n"
        "        return ToolSchema(function={'name': 'declared'})\n"
        "    async def execute(self, instance_id, parameters, **kwargs): ...\n"
    )
    (tool,) = load_tools([{"class_name": "ours.py:Ours"}], folder).values()
    assert (tool.name, type(tool).__name__) == ("declared", "Ours")


def test_a_class_of_ours_that_skips_its_base_says_so_at_once(folder: Path) -> None:
    (folder / "ours.py").write_text(
        "from agentrl import BaseTool\n"
        "class Ours(BaseTool):\n"
        "    def __init__(self, config, tool_schema): pass\n"
        "    async def execute(self, instance_id, parameters, **kwargs): ...\n"
    )
    with pytest.raises(ConfigError, match=r"Ours should call super\(\).__init__"):
        load_tools([{"class_name": "ours.py:Ours", "tool_schema": SCHEMA}], folder)


def test_a_tool_of_verl_without_any_schema_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="without a `tool_schema`: Early does not take"):
        tool_of(folder, "Early", tool_schema=None)
    with pytest.raises(ConfigError, match="no `tool_schema`, and none can be inferred"):
        tool_of(folder, "Plain", tool_schema=None)


@pytest.mark.parametrize(
    ("result", "read"),
    [
        ("None", (ToolResponse(), 0.0, {})),
        ("'text'", (ToolResponse(text="text"), 0.0, {})),
        ("12", (ToolResponse(text="12"), 0.0, {})),
        ("('text',)", (ToolResponse(text="text"), 0.0, {})),
        ("('text', 1)", (ToolResponse(text="text"), 1.0, {})),
        ("('text', None, None)", (ToolResponse(text="text"), 0.0, {})),
        ("({'text': 'x', 'more': 1}, 0.5, {'n': 1})", (ToolResponse(text="x"), 0.5, {"n": 1})),
        ("Response(text='x')", (ToolResponse(text="x"), 0.0, {})),
    ],
)
async def test_whatever_execute_returns_becomes_our_three(
    folder: Path, result: str, read: Any
) -> None:
    tool = tool_of(folder, "Plain", config={"result": result})
    assert await tool.execute("e-0", {}) == read


async def test_methods_that_are_left_out_are_filled_in(folder: Path) -> None:
    tool = tool_of(folder, "Plain", config={"result": "None"})
    await tool.open(None)
    assert await tool.create("e-0") == ("e-0", ToolResponse())
    assert await tool.calc_reward("e-0", x=1) == 0.0
    await tool.release("e-0", x=1)
    await tool.close()


async def test_a_reward_that_is_no_number_is_none_and_said_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tool = tool_of(folder, "Listing")
    results = [await tool.execute("e-0", {}) for _ in range(2)]
    assert [(reward, metrics) for _, reward, metrics in results] == [(0.0, {})] * 2
    assert await tool.calc_reward("e-0") == 0.0
    assert [record.message for record in caplog.records] == [
        "tool 'check': expected a number as the reward, got list; it counts as none",
        "tool 'check' calc_reward: expected a number as the reward, got list; it counts as none",
    ]


async def test_an_image_of_a_foreign_response_is_not_lost(folder: Path) -> None:
    response, _, _ = await tool_of(folder, "Listing").execute("e-0", {})
    assert response.media == (Media.of("image", b"a cat"),)


def test_wrapping_leaves_the_object_as_it_was(folder: Path) -> None:
    assert vars(tool_of(folder, "Plain", config={"result": "1"}).foreign) == {"result": "1"}


async def test_an_interaction_that_scores_its_turns_is_counted_once(folder: Path) -> None:
    them = interaction_of(folder, "Gsm8kInteraction")
    instance = await them.start_interaction("e-0", ground_truth="72")
    answers = [
        await them.generate_response(instance, [{"role": "assistant", "content": word}])
        for word in ("71", "72")
    ]
    score = await them.calculate_score(instance)
    await them.finalize_interaction(instance)
    assert answers == [(False, "wrong", 0.0, {}), (True, "right", 1.0, {})]
    assert score == 0.0
    assert them.foreign.states == {}


async def test_the_base_of_verl_takes_no_instance_when_it_ends(folder: Path) -> None:
    them = interaction_of(folder, "TheirInteraction")
    assert await them.start_interaction("e-0", query="x") == "e-0"
    assert await them.generate_response("e-0", []) == (False, "go on", 0.8, {})
    assert await them.calculate_score("e-0", query="x") == 0.0
    await them.finalize_interaction("e-0")
    assert them.foreign.ended


async def test_an_answer_may_have_three_parts(folder: Path) -> None:
    them = interaction_of(folder, "Short")
    assert (them.name, await them.start_interaction("e-0")) == ("them", "e-0")
    assert await them.generate_response("e-0", []) == (True, "", 0.0, {})
    await them.finalize_interaction("e-0")
