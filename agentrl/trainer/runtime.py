"""Everything a configuration names, built and opened together: model, tools, task, engine, sandbox.

    RunConfig -> Policy, Renderer, Engine, tools, interactions, task -> Rollout

Training, evaluation and single rollouts all start here and leave by `__aexit__`, which closes
what was opened, in reverse order.
"""

from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from agentrl.config.run import RunConfig
from agentrl.contracts.task import BaseTask
from agentrl.data.task import load_task
from agentrl.learner.models import Policy, chat_template, load_policy
from agentrl.plugins.registry import load_interactions, load_tools
from agentrl.rollout.render import Renderer
from agentrl.rollout.rollout import Rollout
from agentrl.rollout.schemas import ToolDict, schema_dict
from agentrl.rollout.services import RunServices
from agentrl.trainer.engines import context_limit, open_engine


class Runtime:
    """The live parts of one run. Use it as an async context manager.

    Args:
        config: what to build.
        weights: a checkpoint's folder to take the policy from.

    Raises:
        ConfigError: a part of the configuration does not work out.
        NotReadyError: a device or package is missing.
    """

    def __init__(self, config: RunConfig, *, weights: Path | None = None) -> None:
        base = config.base_dir
        self.config = config
        # Cheap parts first: a typo in a tool's YAML should not wait for a model to load.
        self.tools = load_tools(config.tools, base)
        self.interactions = load_interactions(config.interaction, base)
        self.task: BaseTask = load_task(config.task, base=base, seed=config.seed)
        if config.deterministic:
            torch.use_deterministic_algorithms(True)
        self.policy: Policy = load_policy(
            config.model, base=base, seed=config.seed, weights=weights
        )
        self.renderer = Renderer(
            self.policy.tokenizer,
            chat_template=chat_template(config.model, base),
            generation_stop_ids=self.policy.generation_stop_ids,
            tool_format=config.rollout.tool_format,
        )
        self.services = RunServices(config.sandbox)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start the engine, verify the template, open the tools."""
        try:
            self._stack.push_async_callback(self.services.close)
            self.engine = await open_engine(self.config, self.policy)
            self._stack.push_async_callback(self.engine.close)
            self.rollout = await self._stack.enter_async_context(
                Rollout(
                    config=self.config.rollout,
                    engine=self.engine,
                    renderer=self.renderer,
                    tools=self.tools,
                    interactions=self.interactions,
                    task=self.task,
                    services=self.services,
                    reward_weights=self.config.reward_weights,
                    model_max_tokens=context_limit(self.config, self.policy),
                )
            )
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close everything."""
        await self._stack.aclose()

    @property
    def schemas(self) -> dict[str, ToolDict]:
        """The tools' schemas, by name, as templates take them."""
        return {name: schema_dict(tool) for name, tool in self.tools.items()}
