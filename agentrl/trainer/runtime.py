"""The live parts of a run, in two halves: what learns, and what rolls out.

    PolicyHost: model, weights, algorithm      RolloutHost: tools, task, sandbox, engine -> Rollout

Each comes out of its factory complete. What is cheap and often wrong (tools, samples, the chat
template) is checked before an engine starts. Rolling out alone needs no `PolicyHost`: a chat
endpoint brings its own policy, and an engine with weights of its own takes them over.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from agentrl.algorithms.base import RLAlgorithm
from agentrl.config.engine import HttpEngineConfig
from agentrl.config.run import RunConfig
from agentrl.contracts.engine import ChatBackend, Engine, WeightPublisher
from agentrl.contracts.sample import Sample
from agentrl.contracts.task import BaseTask
from agentrl.engines.served import (
    ServedPolicy,
    context_limit,
    is_chat,
    is_embedded,
    make_engine,
)
from agentrl.engines.weights import LiveWeights, LoadedWeights
from agentrl.learner.models import Model, load_model, load_tokenizer
from agentrl.rewards.scoring import load_scorers
from agentrl.rollout.actor import Actor, ChatActor, TokenActor
from agentrl.rollout.group import Rollout
from agentrl.rollout.services import RunServices
from agentrl.templates.render import Renderer
from agentrl.trainer.content import Plugins, check_template, open_renderer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyHost:
    """What learns: the model, who publishes its weights, and how it is improved."""

    model: Model
    weights: LiveWeights
    algorithm: RLAlgorithm

    @classmethod
    def load(cls, config: RunConfig, algorithm: RLAlgorithm, weights: Path | None) -> "PolicyHost":
        """Load the model; with `weights`, from a checkpoint's folder.

        Raises:
            ConfigError: the model cannot be loaded.
            NotReadyError: its device is not there.
        """
        model = _load_model(config, weights)
        return cls(model=model, weights=LiveWeights(model.model), algorithm=algorithm)

    def served(self) -> ServedPolicy:
        """Describe the policy to an engine."""
        return _served(self.model, self.weights, embedded=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutHost:
    """What rolls out, open."""

    plugins: Plugins
    renderer: Renderer
    services: RunServices
    engine: Engine | ChatBackend
    rollout: Rollout

    @property
    def task(self) -> BaseTask:
        """The run's task."""
        return self.plugins.task


@asynccontextmanager
async def open_rollout(
    config: RunConfig,
    *,
    weights: Path | None = None,
    plugins: Plugins | None = None,
    samples: Sequence[Sample] = (),
) -> AsyncIterator[RolloutHost]:
    """Open what rolls out a policy that is not trained, without a second copy of its weights.

    Args:
        config: what to open.
        weights: a checkpoint's folder to take the policy from.
        plugins: of this configuration, if they are loaded already.
        samples: what is going to be rolled out, to be checked against tools and interactions.

    Raises:
        ConfigError: a part of the configuration does not work out.
        NotReadyError: a device, package, sandbox or server is missing.
    """
    plugins = plugins or Plugins.load(config)
    policy = await asyncio.to_thread(_load_served, config, weights)
    async with host_rollout(config, plugins, policy, samples) as host:
        yield host


@asynccontextmanager
async def host_rollout(
    config: RunConfig, plugins: Plugins, policy: ServedPolicy, samples: Sequence[Sample]
) -> AsyncIterator[RolloutHost]:
    """Open what rolls out the given policy: checks first, then tools, then the engine.

    Raises:
        ConfigError: a sample, a tool or the template does not fit.
        NotReadyError: a package, sandbox or server is missing.
    """
    base = config.base_dir
    renderer = open_renderer(config, policy.tokenizer)
    for line in check_template(renderer, plugins):
        logger.info("%s", line)
    engine, actor, start = _engine(config, policy, renderer)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.close)
        services = RunServices(config.sandbox)
        stack.push_async_callback(services.close)
        rollout = Rollout(
            config=config.rollout,
            actor=actor,
            renderer=renderer,
            tools=plugins.tools,
            interactions=plugins.interactions,
            scoring=load_scorers(config, plugins.task, services, base=base),
            services=services,
            model_max_tokens=context_limit(config, policy),
        )
        rollout.check(samples)
        await stack.enter_async_context(rollout)
        await start()
        yield RolloutHost(
            plugins=plugins, renderer=renderer, services=services, engine=engine, rollout=rollout
        )


def _engine(
    config: RunConfig, policy: ServedPolicy, renderer: Renderer
) -> tuple[Engine | ChatBackend, Actor, Callable[[], Awaitable[None]]]:
    """Make the engine, who writes turns with it, and what starts it."""
    if isinstance(config.engine, HttpEngineConfig) and is_chat(config):
        from agentrl.engines.http.chat import ChatEngine

        chat = ChatEngine(config.engine)
        return chat, ChatActor(backend=chat, renderer=renderer), chat.start
    engine, start = make_engine(config, policy)
    actor = TokenActor(engine=engine, renderer=renderer, tool_format=renderer.tool_format)
    return engine, actor, start


def _load_model(config: RunConfig, weights: Path | None) -> Model:
    if config.deterministic:
        torch.use_deterministic_algorithms(True)
    return load_model(config.model, base=config.base_dir, seed=config.seed, weights=weights)


def _load_served(config: RunConfig, weights: Path | None) -> ServedPolicy:
    """Load as much of the policy as its engine needs."""
    if is_chat(config):
        source = config.model
        if weights is not None:
            source = source.model_copy(update={"path": str(weights), "builder": None})
        return ServedPolicy(
            tokenizer=load_tokenizer(source, base=config.base_dir, seed=config.seed)
        )
    model = _load_model(config, weights)
    if is_embedded(config):
        return _served(model, LiveWeights(model.model), embedded=True)
    taken = LoadedWeights(model.model, lambda: _load_model(config, weights).model)
    return _served(model, taken, embedded=False)


def _served(model: Model, weights: WeightPublisher, *, embedded: bool) -> ServedPolicy:
    module, limit = model.model, model.max_tokens
    served = ServedPolicy.of(module, model.tokenizer, model.device, limit, weights)
    return replace(served, module=module) if embedded else served
