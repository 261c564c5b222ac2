"""The engine that a configuration asks for, started; and whether it can be trained with."""

import copy
import tempfile
from pathlib import Path

from agentrl.config.engine import (
    HttpEngineConfig,
    ParityConfig,
    TransformersEngineConfig,
    VllmEngineConfig,
)
from agentrl.config.run import RunConfig
from agentrl.contracts.engine import Engine
from agentrl.errors import ConfigError, EngineError, NotReadyError
from agentrl.learner.models import Policy


async def open_engine(config: RunConfig, policy: Policy) -> Engine:
    """Start the configured engine. It generates with the policy's weights.

    A chat endpoint alone keeps its own: it takes no others.

    Raises:
        ConfigError: the engine does not take its configuration.
        NotReadyError: it is not installed, or does not come up.
    """
    if isinstance(config.engine, VllmEngineConfig):
        return await _open_vllm(config, config.engine, policy)
    if isinstance(config.engine, HttpEngineConfig):
        return await _open_http(config.engine, policy)
    from agentrl.engines.transformers import TransformersEngine

    return TransformersEngine(
        policy.model, max_batch=config.engine.max_batch, deterministic=config.deterministic
    )


def context_limit(config: RunConfig, policy: Policy) -> int | None:
    """Return how long a sequence the model and the engine take; None where neither says."""
    limits = [policy.max_tokens]
    if isinstance(config.engine, VllmEngineConfig):
        limits.append(config.engine.max_tokens)
    return min((limit for limit in limits if limit), default=None)


def check_trainable(config: RunConfig) -> None:
    """Refuse to train with what only evaluates, or to overlap what cannot be overlapped.

    Raises:
        ConfigError: says why, and what to use instead.
    """
    engine = config.engine
    if isinstance(engine, HttpEngineConfig) and engine.api == "openai_chat":
        raise ConfigError(
            "engine.api openai_chat cannot be trained with: a chat endpoint gives no token ids, so "
            "what the policy sampled is not known; use it for `eval` and `rollout`, and train "
            "with engine.type=vllm or engine.api=vllm"
        )
    if isinstance(engine, TransformersEngineConfig) and config.rollout.max_staleness > 0:
        raise ConfigError(
            f"rollout.max_staleness={config.rollout.max_staleness} needs an engine with weights "
            "of its own (engine.type=vllm or http); the embedded one generates with the trainer's "
            "own model, which an update changes"
        )
    if config.deterministic and not isinstance(engine, TransformersEngineConfig):
        raise ConfigError(
            f"deterministic=true needs engine.type=transformers, got {engine.type}: other engines "
            "batch requests as they come, which changes the last bits of their log-probabilities"
        )


def parity_config(config: RunConfig) -> ParityConfig | None:
    """Return how the engine is probed; None where it generates with the trainer's own module."""
    return None if isinstance(config.engine, TransformersEngineConfig) else config.engine.parity


async def _open_vllm(config: RunConfig, engine: VllmEngineConfig, policy: Policy) -> Engine:
    from agentrl.engines.vllm.engine import VllmEngine
    from agentrl.engines.vllm.launch import ModelSpec

    if policy.device.index:
        raise ConfigError(
            f"model.device={policy.device}: vLLM's process takes the first GPU that it sees, and "
            f"reads the policy's weights there; set CUDA_VISIBLE_DEVICES={policy.device.index} "
            "and model.device=cuda"
        )
    described = copy.deepcopy(policy.model.config)
    described.architectures = [type(policy.model).__name__]
    limits = [context_limit(config, policy), config.rollout.max_context_tokens]
    max_tokens = min((limit for limit in limits if limit), default=None)
    if max_tokens is None:
        raise ConfigError("engine.max_tokens: the model names no limit of its own; set one")
    spec = ModelSpec(
        config=described,
        dtype=str(policy.model.dtype).removeprefix("torch."),
        device=policy.device.type,
        max_tokens=max_tokens,
    )
    opened = VllmEngine(spec, engine, log_file=_log_file(config))
    await opened.start()
    return await _with_weights(opened, policy)


async def _open_http(config: HttpEngineConfig, policy: Policy) -> Engine:
    from agentrl.engines.http.chat import ChatEngine
    from agentrl.engines.http.engine import HttpEngine

    folder = Path(config.weight_dir) if config.weight_dir else None
    if config.api == "openai_chat":
        chat = ChatEngine(config)
        await chat.start()
        return chat
    engine = HttpEngine(config, weight_dir=folder)
    await engine.start()
    return await _with_weights(engine, policy)


async def _with_weights(engine: Engine, policy: Policy) -> Engine:
    try:
        async with policy.lock:
            await engine.update_weights(policy, 0)
    except EngineError as error:
        await engine.close()
        raise NotReadyError(str(error)) from error
    return engine


def _log_file(config: RunConfig) -> Path:
    """In the run's folder; evaluations outside of a run have none."""
    folder = config.run_dir if config.run_dir.is_dir() else Path(tempfile.gettempdir())
    return folder.resolve() / "vllm.log"
