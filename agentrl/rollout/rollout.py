"""Rolling out groups: every episode is its own task and waits for no other's tools.

A `Rollout` owns the run's tool and interaction objects between `__aenter__` and `__aexit__`.
Seeds derive from the group's and member's place, so results do not depend on scheduling.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from agentrl.config.rollout import RolloutConfig, SamplingConfig
from agentrl.contracts.engine import Engine
from agentrl.contracts.interaction import BaseInteraction
from agentrl.contracts.sample import Sample
from agentrl.contracts.task import BaseTask
from agentrl.contracts.tool import BaseTool, Services
from agentrl.contracts.trajectory import Group, Trajectory
from agentrl.errors import ConfigError
from agentrl.rollout.episode import Episode, EpisodeContext
from agentrl.rollout.formats.turn import ToolFormat
from agentrl.rollout.partner import Partner, choose_interaction
from agentrl.rollout.render import Renderer
from agentrl.rollout.schemas import schema_dict
from agentrl.rollout.template_check import verify_template
from agentrl.seed import derive_seed

_log = logging.getLogger(__name__)
_UNBOUNDED = 1 << 40


class Rollout:
    """Rolls out samples with one engine, one set of tools and one task.

    Args:
        config: budgets and failure policy.
        engine: writes the policy turns.
        renderer: the model's chat template.
        tool_format: reads the policy's tool calls; by `config.tool_format` when left out.
        tools: by name, as `load_tools` returns them.
        interactions: by name, as `load_interactions` returns them.
        task: scores the trajectories.
        services: lent to tools and task.
        reward_weights: by reward source.
        model_max_tokens: the model's own context limit, if it has one.
    """

    def __init__(
        self,
        *,
        config: RolloutConfig,
        engine: Engine,
        renderer: Renderer,
        tools: Mapping[str, BaseTool],
        interactions: Mapping[str, BaseInteraction],
        task: BaseTask,
        services: Services,
        reward_weights: Mapping[str, float] | None = None,
        model_max_tokens: int | None = None,
        tool_format: ToolFormat | None = None,
    ) -> None:
        limits = [config.max_context_tokens, model_max_tokens]
        self.config = config
        self.engine = engine
        self.renderer = renderer
        self.tools = dict(tools)
        self._interactions = dict(interactions)
        self._opened: list[BaseTool] = []
        self._places = asyncio.Semaphore(config.max_concurrent_episodes)
        self._context = EpisodeContext(
            config=config,
            engine=engine,
            renderer=renderer,
            tool_format=tool_format or renderer.tool_format,
            task=task,
            services=services,
            reward_weights=reward_weights or {},
            context_limit=min((limit for limit in limits if limit), default=_UNBOUNDED),
        )

    async def __aenter__(self) -> Self:
        """Verify the chat template and open every tool.

        Raises:
            TemplateError: the template cannot be used at all.
            NotReadyError: a tool needs something that is not there.
        """
        schemas = [schema_dict(tool) for tool in self.tools.values()]
        report = verify_template(self.renderer, schemas, users=bool(self._interactions))
        for line in report.lines():
            _log.info("%s", line)
        try:
            for tool in self.tools.values():
                self._opened.append(tool)
                if hasattr(tool, "open"):
                    await tool.open(self._context.services)
        except BaseException:
            await self._close_tools()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every tool."""
        await self._close_tools()

    async def run_group(
        self,
        sample: Sample,
        *,
        group_id: str,
        size: int,
        seed: int,
        sampling: SamplingConfig | None = None,
    ) -> Group:
        """Roll out one sample `size` times, concurrently; a member's failure is its own."""
        try:
            async with asyncio.TaskGroup() as tasks:
                members = [
                    tasks.create_task(
                        self._run_member(
                            sample,
                            f"{group_id}-{member}",
                            derive_seed(seed, member),
                            sampling or self.config.sampling,
                        )
                    )
                    for member in range(size)
                ]
        except BaseExceptionGroup as group:
            # A wrong configuration fails every member alike: one of the errors says it all.
            raise group.exceptions[0] from None
        trajectories = tuple(member.result() for member in members)
        return Group(id=group_id, sample=sample, trajectories=trajectories)

    async def run_groups(
        self,
        samples: Iterable[Sample],
        *,
        name: str,
        size: int,
        seed: int,
        sampling: SamplingConfig | None = None,
    ) -> AsyncGenerator[tuple[int, Group], None]:
        """Roll out many samples; yield `(position, group)` as groups complete.

        Group ids are `{name}-{position}`. Leaving the iteration early cancels the rest; close
        the iterator (`contextlib.aclosing`) to wait for their clean-up.
        """

        async def run(position: int, sample: Sample) -> tuple[int, Group]:
            group = await self.run_group(
                sample,
                group_id=f"{name}-{position}",
                size=size,
                seed=derive_seed(seed, position),
                sampling=sampling,
            )
            return position, group

        tasks = [asyncio.create_task(run(i, sample)) for i, sample in enumerate(samples)]
        try:
            for finished in asyncio.as_completed(tasks):
                yield await finished
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def offered_tools(self, sample: Sample) -> dict[str, BaseTool]:
        """Return the tools that a sample is offered.

        Raises:
            ConfigError: `tool_selection` names a tool that is not registered.
        """
        if sample.tool_selection is None:
            return self.tools
        unknown = [name for name in sample.tool_selection if name not in self.tools]
        if unknown:
            raise ConfigError(
                f"sample {sample.index} of {sample.data_source!r}: tool_selection names "
                f"{unknown}; the registered tools are {sorted(self.tools)}"
            )
        return {name: self.tools[name] for name in sample.tool_selection}

    async def _run_member(
        self, sample: Sample, episode_id: str, seed: int, sampling: SamplingConfig
    ) -> Trajectory:
        async with self._places:
            return await Episode(
                self._context,
                sample,
                self.offered_tools(sample),
                self._partner(sample, episode_id),
                episode_id=episode_id,
                seed=seed,
                sampling=sampling,
            ).run()

    def _partner(self, sample: Sample, episode_id: str) -> Partner | None:
        kwargs: dict[str, Any] = dict(sample.interaction_kwargs)
        interaction = choose_interaction(self._interactions, kwargs)
        kwargs.pop("name", None)
        if interaction is None:
            return None
        return Partner(
            interaction=interaction,
            kwargs=kwargs,
            episode_id=episode_id,
            timeout_s=self.config.tool_timeout_s,
        )

    async def _close_tools(self) -> None:
        opened, self._opened = self._opened, []
        async with AsyncExitStack() as stack:  # closes the rest when one fails to
            for tool in opened:
                if hasattr(tool, "close"):
                    stack.push_async_callback(tool.close)
