"""Tools and interactions of other libraries, wrapped once when they are loaded.

Behind this module every tool *is* a `BaseTool` and every interaction a `BaseInteraction`; nothing
asks an object what it has. Classes that inherit our bases pass untouched; others are taken as
written for verl: methods may be plain functions (they run in threads of their own, with time-outs
in force), return less than ours must, or be left out.

**An interaction of another library is scored by its turns alone.** verl never calls
`calculate_score`: a class whose score is to count calls it itself, in `generate_response` (its
GSM8K interaction does). To ask again would count one right answer twice.
"""

import inspect
import logging
from collections.abc import Callable, Mapping
from functools import cache
from numbers import Real
from typing import Any

from typing_extensions import override

from agentrl.aside import call
from agentrl.contracts.interaction import BaseInteraction
from agentrl.contracts.message import Message
from agentrl.contracts.tool import BaseTool, Services, ToolResponse, ToolSchema
from agentrl.errors import ConfigError, loading
from agentrl.plugins.schema import read_schema

logger = logging.getLogger(__name__)


def adapt_tool(tool: Any, schema: ToolSchema | None, *, where: str) -> BaseTool:
    """Return `tool` as a `BaseTool`. `schema` holds where the object does not say another.

    Raises:
        ConfigError: there is no schema, or it is none.
    """
    what = f"{where}: {type(tool).__name__}"
    if isinstance(tool, BaseTool):
        with loading(f"{what} should call super().__init__(config, tool_schema)"):
            _ = tool.name, tool.tool_schema.function
        return tool
    with loading(f"{what}.get_openai_tool_schema"):
        said = getattr(tool, "get_openai_tool_schema", _nothing)()
    found = said or getattr(tool, "tool_schema", None) or schema
    if found is None:
        raise ConfigError(f"{what} has no schema; write `tool_schema` in the YAML")
    return ForeignTool(tool, read_schema(found, where=where))


def adapt_interaction(interaction: Any, name: str) -> BaseInteraction:
    """Return `interaction` as a `BaseInteraction`."""
    if isinstance(interaction, BaseInteraction):
        return interaction
    return ForeignInteraction(interaction, name)


class ForeignTool(BaseTool):
    """A tool that does not inherit `BaseTool`."""

    def __init__(self, tool: Any, schema: ToolSchema) -> None:
        super().__init__({}, schema)
        self.foreign = tool

    @override
    async def open(self, services: Services) -> None:
        await _call(self.foreign, "open", services)

    @override
    async def close(self) -> None:
        await _call(self.foreign, "close")

    @override
    async def create(
        self, instance_id: str | None = None, **kwargs: Any
    ) -> tuple[str, ToolResponse]:
        created = await call(self.foreign.create, instance_id, **kwargs)
        given, response = created if isinstance(created, tuple) else (created, None)
        return str(given or instance_id), _response(response)

    @override
    async def execute(
        self, instance_id: str, parameters: dict[str, Any], **kwargs: Any
    ) -> tuple[ToolResponse, float, dict[str, Any]]:
        result = await call(self.foreign.execute, instance_id, parameters, **kwargs)
        parts = result if isinstance(result, tuple) else (result,)
        response, reward, metrics, *_ = (*parts, None, None)
        return _response(response), _reward(reward, f"tool {self.name!r}"), dict(metrics or {})

    @override
    async def calc_reward(self, instance_id: str, **kwargs: Any) -> float:
        reward = await _call(self.foreign, "calc_reward", instance_id, **kwargs)
        return _reward(reward, f"tool {self.name!r} calc_reward")

    @override
    async def release(self, instance_id: str, **kwargs: Any) -> None:
        await _call(self.foreign, "release", instance_id, **kwargs)


class ForeignInteraction(BaseInteraction):
    """An interaction that does not inherit `BaseInteraction`; its turns alone are rewarded."""

    def __init__(self, interaction: Any, name: str) -> None:
        super().__init__({"name": name})
        self.foreign = interaction

    @override
    async def start_interaction(self, instance_id: str | None = None, **kwargs: Any) -> str:
        started = await call(self.foreign.start_interaction, instance_id, **kwargs)
        return str(started or instance_id)

    @override
    async def generate_response(
        self, instance_id: str, messages: list[Message], **kwargs: Any
    ) -> tuple[bool, str, float, dict[str, Any]]:
        answer = await call(self.foreign.generate_response, instance_id, messages, **kwargs)
        end, content, reward, extra = (*tuple(answer), None)[:4]
        reward = _reward(reward, f"interaction {self.name!r}")
        return bool(end), str(content or ""), reward, dict(extra or {})

    @override
    async def finalize_interaction(self, instance_id: str, **kwargs: Any) -> None:
        await _call(self.foreign, "finalize_interaction", instance_id, **kwargs)


async def _call(plugin: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method that may be left out, with as much as it takes: some of verl's take nothing."""
    method: Callable[..., Any] = getattr(plugin, name, _nothing)
    if method is _nothing:
        return None
    parameters = inspect.signature(method).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        kwargs = {key: value for key, value in kwargs.items() if key in parameters}
    if kinds <= {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}:
        args = ()
    return await call(method, *args, **kwargs)


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Stand in for a method that was left out."""


def _response(value: Any) -> ToolResponse:
    """Read an observation: text, a mapping, or an object with a `ToolResponse`'s attributes."""
    if value is None or isinstance(value, ToolResponse):
        return value or ToolResponse()
    names = ToolResponse.model_fields
    if isinstance(value, Mapping):
        return ToolResponse.model_validate({name: value.get(name) for name in names})
    if hasattr(value, "text"):
        return ToolResponse.model_validate({name: getattr(value, name, None) for name in names})
    return ToolResponse(text=str(value))


def _reward(value: Any, what: str) -> float:
    """Take what is no number for no reward: some of verl's tools return lists nobody adds up."""
    if isinstance(value, Real):
        return float(value)
    if value is not None:
        _warn_once(what, type(value).__name__)
    return 0.0


@cache
def _warn_once(what: str, kind: str) -> None:
    logger.warning("%s: expected a number as the reward, got %s; it counts as none", what, kind)
