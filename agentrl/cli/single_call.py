"""One tool call by hand, through the code that an episode uses."""

import time
from typing import Any

from agentrl.config.rollout import RolloutConfig
from agentrl.contracts.tool import BaseTool, Services, ToolCall, ToolRecord
from agentrl.rollout.toolset import Toolset


async def call_once(
    tool: BaseTool, arguments: dict[str, Any], services: Services, *, create_kwargs: dict[str, Any]
) -> tuple[ToolRecord, float]:
    """Open a tool, create an instance, call it, ask for its reward, release it, close it.

    Returns:
        The call's record and the tool's reward for the whole trajectory.

    Raises:
        RolloutError: the instance could not be created or scored.
    """
    toolset = Toolset(
        tools={tool.name: tool},
        config=RolloutConfig(),
        episode_id="by-hand",
        kwargs={tool.name: {"create_kwargs": create_kwargs}},
        started=time.monotonic(),
    )
    try:
        await tool.open(services)
        await toolset.create()
        call = ToolCall(id="call_0", name=tool.name, arguments=arguments)
        record = (await toolset.execute((call,), limit=1))[0]
        rewards = await toolset.rewards()
        return record, rewards[0].value
    finally:
        await toolset.release()
        await tool.close()


def example_arguments(tool: BaseTool) -> dict[str, Any]:
    """Make valid-looking arguments from a tool's schema, for a smoke call."""
    parameters = tool.tool_schema.function.parameters
    properties = parameters.get("properties", {})
    return {name: _example(properties.get(name, {})) for name in parameters.get("required", [])}


def _example(schema: dict[str, Any]) -> Any:
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    if "default" in schema:
        return schema["default"]
    examples: dict[str, Any] = {
        "string": "1",
        "integer": 1,
        "number": 1,
        "boolean": True,
        "array": [],
        "object": {},
    }
    return examples.get(str(schema.get("type")), "1")
