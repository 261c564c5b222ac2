"""The tools of one episode: created once, called many times, scored, always released.

Every call ends in exactly one `ToolOutcome`. The model's mistakes (unknown tool, arguments that
do not fit the schema, `ToolError`) become observations; infrastructure errors are retried with
exponential back-off first; nothing a tool raises leaves this module except cancellation.
"""

import asyncio
import copy
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from agentrl.config.rollout import RolloutConfig
from agentrl.contracts.failure import Failure
from agentrl.contracts.reward import RewardEntry, finite
from agentrl.contracts.tool import BaseTool, ToolCall, ToolOutcome, ToolRecord, ToolResponse
from agentrl.errors import (
    InfraError,
    PluginError,
    RolloutError,
    ToolError,
    ToolTimeoutError,
    boundary,
)
from agentrl.plugins.schema import violations
from agentrl.retry import retried
from agentrl.rollout.truncate import showable, truncate
from agentrl.shield import quietly, shielded
from agentrl.waits import within

T = TypeVar("T")

_REMEDY = "look at what the tool waits for, or lower rollout.tool_timeout_s"
_NAMES = {"image": "an image", "video": "a video"}


@dataclass(kw_only=True, slots=True)
class Toolset:
    """One episode's instances of `tools`.

    `kwargs` is the sample's `tools_kwargs`; `started` the episode's start on the monotonic clock.
    `interrupted` holds the records of a turn whose execution was cancelled.
    """

    tools: Mapping[str, BaseTool]
    config: RolloutConfig
    episode_id: str
    kwargs: Mapping[str, Mapping[str, Any]]
    started: float
    interrupted: list[ToolRecord] = field(default_factory=list)
    _instances: dict[str, str] = field(default_factory=dict)
    _created: list[str] = field(default_factory=list)

    async def create(self) -> None:
        """Create an instance of every tool, concurrently.

        Raises:
            RolloutError: one could not be created; what was begun is still to be released.
        """
        results = await asyncio.gather(
            *(self._create(name, tool) for name, tool in self.tools.items()),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def execute(self, calls: tuple[ToolCall, ...], *, limit: int) -> list[ToolRecord]:
        """Execute one turn's calls concurrently; those beyond the first `limit` are refused.

        A call that cannot be read does not count.
        """
        began = time.monotonic()
        readable = [call for call in calls if call.error is None]
        refused = {call.id for call in readable[limit:]}
        tasks: list[asyncio.Task[ToolRecord]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for call in calls:
                    passed = limit if call.id in refused else None
                    tasks.append(group.create_task(self._execute(call, passed)))
        except asyncio.CancelledError:
            self.interrupted = [
                self._cancelled(call, began) if task.cancelled() else task.result()
                for call, task in zip(calls, tasks, strict=True)
            ]
            raise
        return [task.result() for task in tasks]

    async def rewards(self) -> list[RewardEntry]:
        """Ask every tool that was created for its reward for the whole trajectory.

        Raises:
            RolloutError: a tool cannot say.
        """
        entries = []
        for name in self._created:
            tool, instance = self.tools[name], self._instances[name]
            with boundary(f"tool {name!r} calc_reward"):
                kwargs = self._kwargs(name, "calc_reward")
                reward = tool.calc_reward(instance, **kwargs)
                value = await self._within(reward, name, "calc_reward")
                entries.append(RewardEntry(source=f"tool/{name}", value=finite(value)))
        return entries

    async def release(self) -> None:
        """Release every instance that was begun, whatever happened and whoever cancels."""
        await shielded(self._release_all())

    async def _create(self, name: str, tool: BaseTool) -> None:
        # Known by its intended id from here on, so that a cancelled `create` is released too.
        self._instances[name] = self.episode_id
        with boundary(f"tool {name!r} create"):
            kwargs = self._kwargs(name, "create")
            match await self._within(tool.create(self.episode_id, **kwargs), name, "create"):
                case (str() as instance, _):
                    self._instances[name] = instance
                case created:
                    raise TypeError(f"expected (instance_id, ToolResponse), got {created!r}")
        self._created.append(name)

    async def _execute(self, call: ToolCall, passed_limit: int | None) -> ToolRecord:
        began = time.monotonic()
        record = ToolRecord(call=call, outcome=ToolOutcome.OK, started_s=began - self.started)
        attempts, retries = 1, self.config.tool_retries
        try:
            self._check(call, passed_limit)
            record, attempts = await retried(partial(self._call, record), retries=retries)
            if record.media:
                raise PluginError(
                    f"tool {call.name!r} returned {_NAMES[record.media[0].kind]}; the policy has "
                    f"no eyes yet: let it return text alone, or offer another tool"
                )
        except ToolError as error:
            record = replace(record, outcome=ToolOutcome.MODEL_ERROR, response=f"Error: {error}")
        except ToolTimeoutError as error:
            text = f"Error: timed out after {self.config.tool_timeout_s:g} s"
            record = replace(
                record, outcome=ToolOutcome.TIMEOUT, response=text, failure=Failure.of(error)
            )
        except RolloutError as error:
            record = replace(
                record,
                outcome=ToolOutcome.INFRA_ERROR,
                response="Error: the tool is not available",
                failure=Failure.of(error),
            )
            attempts = 1 + retries * isinstance(error, InfraError)
        limit, keep = self.config.max_tool_response_chars, self.config.tool_response_keep
        shown = truncate(showable(record.response), limit, keep)
        took_s = time.monotonic() - began
        return replace(record, response=shown, duration_s=took_s, attempts=attempts)

    def _check(self, call: ToolCall, passed_limit: int | None) -> None:
        """Check that a call can be executed as it is written.

        Raises:
            ToolError: it cannot.
            PluginError: the tool's schema cannot be applied.
        """
        if passed_limit is not None:
            raise ToolError(f"at most {passed_limit} calls a turn are executed")
        if call.error is not None:
            raise ToolError(call.error)
        tool = self.tools.get(call.name)
        if tool is None:
            raise ToolError(f"no tool named {call.name!r}; the tools are {', '.join(self.tools)}")
        with boundary(f"tool {call.name!r} schema"):
            faults = violations(tool.tool_schema, call.arguments)
        if faults:
            raise ToolError(f"invalid arguments: {'; '.join(faults)}")

    async def _call(self, record: ToolRecord) -> ToolRecord:
        """Call the tool once."""
        name = record.call.name
        with boundary(f"tool {name!r}"):
            # A tool may write into what it is given: the record and a second attempt keep theirs.
            arguments, kwargs = copy.deepcopy(record.call.arguments), self._kwargs(name, "execute")
            executed = self.tools[name].execute(self._instances[name], arguments, **kwargs)
            result = await self._within(executed, name, "execute")
            match result:
                case (ToolResponse() as response, reward, metrics):
                    return replace(
                        record,
                        response=response.text or "",
                        media=response.media,
                        reward=finite(reward),
                        metrics=dict(metrics or {}),
                    )
            raise TypeError(
                f"expected (ToolResponse, reward, metrics) from `execute`, got {str(result)[:200]}"
            )

    async def _within(self, work: Awaitable[T], name: str, method: str) -> T:
        """Await one method of a tool until its deadline."""
        return await within(
            work,
            f"tool {name!r}: {method}",
            f"episode {self.episode_id}",
            remedy=_REMEDY,
            deadline_s=self.config.tool_timeout_s,
        )

    def _kwargs(self, name: str, method: str) -> dict[str, Any]:
        """Return a copy of what the sample gives to one method of a tool."""
        return dict(copy.deepcopy(self.kwargs.get(name, {}).get(f"{method}_kwargs") or {}))

    def _cancelled(self, call: ToolCall, began: float) -> ToolRecord:
        return ToolRecord(
            call=call,
            outcome=ToolOutcome.CANCELLED,
            response="Error: cancelled",
            started_s=began - self.started,
            duration_s=time.monotonic() - began,
        )

    async def _release_all(self) -> None:
        await asyncio.gather(*(self._release(n, i) for n, i in self._instances.items()))
        self._instances.clear()

    async def _release(self, name: str, instance: str) -> None:
        await quietly(
            lambda: self.tools[name].release(instance, **self._kwargs(name, "release")),
            f"tool {name!r}: release",
            f"episode {self.episode_id}",
            self.config.tool_timeout_s,
        )
