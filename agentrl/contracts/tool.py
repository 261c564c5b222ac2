"""The tool plugin: what a policy may call in the middle of a dialogue.

One tool *object* serves the whole run and holds what is costly (a client, a sandbox); one
*instance* per trajectory, named by `instance_id`, holds what belongs to that dialogue. The
signatures are verl's, so its classes run unchanged.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

from agentrl.contracts.failure import Failure
from agentrl.contracts.media import Media
from agentrl.contracts.sandbox import Sandbox

ToolDict = dict[str, Any]
"""A tool's schema as chat templates take it."""


class FunctionSchema(BaseModel):
    """The function part of an OpenAI tool schema; `parameters` is full JSON Schema, kept whole."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    description: str = ""
    parameters: dict[str, Any] = Field(
        default_factory=lambda: {"type": "object", "properties": {}, "required": []}
    )
    strict: bool = False


class ToolSchema(BaseModel):
    """A tool in the OpenAI form: `{"type": "function", "function": {...}}`."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["function"] = "function"
    function: FunctionSchema

    def for_template(self) -> ToolDict:
        """Return the dictionary that a chat template's `tools=` expects."""
        return {"type": "function"} | self.model_dump(exclude_unset=True)


class ToolResponse(BaseModel):
    """What the model sees of a tool call: text, and images or videos where the policy has eyes."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = None
    image: list[Any] | None = None
    video: list[Any] | None = None

    @property
    def media(self) -> tuple[Media, ...]:
        """The images and videos, read.

        Raises:
            OSError, ValueError: one cannot be.
        """
        return (
            *(Media.read("image", value) for value in self.image or ()),
            *(Media.read("video", value) for value in self.video or ()),
        )


class ToolOutcome(StrEnum):
    """How one tool call ended. Exactly one applies to each call."""

    OK = "ok"
    MODEL_ERROR = "model_error"
    TIMEOUT = "timeout"
    INFRA_ERROR = "infra_error"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """A call that the policy wrote. `error` says why it cannot be executed as written, if so."""

    id: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolRecord:
    """One executed call, as the trajectory keeps it. Times are seconds since the episode began.

    `media` are the images and videos that the tool returned, `failure` is what went wrong.
    """

    call: ToolCall
    outcome: ToolOutcome
    response: str = ""
    media: tuple[Media, ...] = ()
    reward: float = 0.0
    metrics: dict[str, Any] = field(default_factory=dict)
    started_s: float = 0.0
    duration_s: float = 0.0
    attempts: int = 1
    failure: Failure | None = None


class Services(Protocol):
    """What the run lends to its tools and tasks."""

    async def sandbox(self) -> Sandbox:
        """Return the run's sandbox, starting it at the first call."""


class BaseTool(ABC):
    """Base of every tool. Override `execute`, and the rest as needed.

    `create` runs once per trajectory, `execute` once per call (calls of one turn run
    concurrently), `calc_reward` once at the end, `release` always, even after a failure or a
    cancellation. Raise `ToolError` for the model's mistakes and `InfraError` for the backend's.
    """

    def __init__(self, config: dict[str, Any], tool_schema: ToolSchema) -> None:
        self.config = config
        self.tool_schema = tool_schema
        self.tool_schema = self.get_openai_tool_schema()  # a class may declare its own
        self.name = self.tool_schema.function.name

    async def open(self, services: Services) -> None:
        """Acquire what the whole run shares. Called once, before the first `create`."""
        return None

    async def close(self) -> None:
        """Give back what `open` acquired. Called once, when the run ends."""
        return None

    def get_openai_tool_schema(self) -> ToolSchema:
        """Return the schema shown to the model: the YAML's, or an overriding class's own."""
        return self.tool_schema

    async def create(
        self, instance_id: str | None = None, **kwargs: Any
    ) -> tuple[str, ToolResponse]:
        """Begin a trajectory; `kwargs` are its `tools_kwargs[name].create_kwargs`."""
        return instance_id or str(uuid4()), ToolResponse()

    @abstractmethod
    async def execute(
        self, instance_id: str, parameters: dict[str, Any], **kwargs: Any
    ) -> tuple[ToolResponse, float, dict[str, Any]]:
        """Run one call with validated parameters; return the observation, a step reward, metrics.

        Raises:
            ToolError: the call is at fault; the message becomes the observation.
            InfraError: a backend is at fault; the call is retried.
        """

    async def calc_reward(self, instance_id: str, **kwargs: Any) -> float:
        """Return this tool's reward for the whole trajectory."""
        return 0.0

    async def release(self, instance_id: str, **kwargs: Any) -> None:
        """Forget the trajectory's state."""
        return None
