"""The engine that a configuration asks for, made but not started; and what it may be used for."""

import copy
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl.config.engine import (
    HttpEngineConfig,
    ParityConfig,
    TransformersEngineConfig,
    VllmEngineConfig,
)
from agentrl.config.run import RunConfig
from agentrl.contracts.engine import Engine, WeightPublisher
from agentrl.errors import ConfigError, EngineError, NotReadyError


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedPolicy:
    """What an engine is told of the policy.

    A chat endpoint has a policy of its own: all but the tokenizer is None then. `module` is there
    for the embedded engine only, which generates with it.
    """

    tokenizer: Any
    module: Any = None
    architecture: str = ""
    model_config: Any = None
    dtype: str = ""
    device: Any = None
    max_tokens: int | None = None
    weights: WeightPublisher | None = None

    @classmethod
    def of(
        cls,
        module: Any,
        tokenizer: Any,
        device: Any,
        max_tokens: int | None,
        weights: WeightPublisher,
    ) -> "ServedPolicy":
        """Describe a module; only its configuration is kept."""
        return cls(
            tokenizer=tokenizer,
            architecture=type(module).__name__,
            model_config=module.config,
            dtype=str(module.dtype).removeprefix("torch."),
            device=device,
            max_tokens=max_tokens,
            weights=weights,
        )


Start = Callable[[], Awaitable[None]]


def is_chat(config: RunConfig) -> bool:
    """Whether the policy is a chat endpoint, of which neither tokens nor weights are known."""
    return isinstance(config.engine, HttpEngineConfig) and config.engine.api == "openai_chat"


def is_embedded(config: RunConfig) -> bool:
    """Whether the engine generates with the trainer's own module."""
    return isinstance(config.engine, TransformersEngineConfig)


def make_engine(config: RunConfig, policy: ServedPolicy) -> tuple[Engine, Start]:
    """Make the configured engine, and what starts it with the policy's weights.

    Raises:
        ConfigError: the engine does not take its configuration.
    """
    engine, start = _make(config, policy)

    async def start_with_weights() -> None:
        await start()
        assert policy.weights is not None
        try:
            await engine.update_weights(policy.weights)
        except EngineError as error:
            raise NotReadyError(str(error)) from error

    return engine, start_with_weights


def context_limit(config: RunConfig, policy: ServedPolicy) -> int | None:
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
    if is_chat(config):
        raise ConfigError(
            "engine.api openai_chat cannot be trained with: a chat endpoint gives no token ids, so "
            "what the policy sampled is not known; use it for `eval` and `rollout`, and train "
            "with engine.type=vllm or engine.api=vllm"
        )
    if is_embedded(config) and config.rollout.max_staleness > 0:
        raise ConfigError(
            f"rollout.max_staleness={config.rollout.max_staleness} needs an engine with weights "
            "of its own (engine.type=vllm or http); the embedded one generates with the trainer's "
            "own model, which an update changes"
        )
    if config.deterministic and not is_embedded(config):
        raise ConfigError(
            f"deterministic=true needs engine.type=transformers, got {engine.type}: other engines "
            "batch requests as they come, which changes the last bits of their log-probabilities"
        )


def parity_config(config: RunConfig) -> ParityConfig | None:
    """Return how the engine is probed; None where it generates with the trainer's own module."""
    return None if isinstance(config.engine, TransformersEngineConfig) else config.engine.parity


def _make(config: RunConfig, policy: ServedPolicy) -> tuple[Engine, Start]:
    if isinstance(config.engine, VllmEngineConfig):
        spec = _vllm_spec(config, config.engine, policy)
        if config.engine.python is not None:
            from agentrl.engines.vllm.apart import ApartEngine

            apart = ApartEngine(spec, config.engine, log_file=_log_file(config))
            return apart, apart.start
        from agentrl.engines.vllm.engine import VllmEngine

        vllm = VllmEngine(spec, config.engine, log_file=_log_file(config))
        return vllm, vllm.start
    if isinstance(config.engine, HttpEngineConfig):
        from agentrl.engines.http.engine import HttpEngine

        folder = config.engine.weight_dir
        http = HttpEngine(config.engine, weight_dir=Path(folder) if folder else None)
        return http, http.start
    from agentrl.engines.transformers import TransformersEngine

    embedded = TransformersEngine(
        policy.module, max_batch=config.engine.max_batch, deterministic=config.deterministic
    )
    return embedded, _started


async def _started() -> None:
    """An engine in this process has nothing to start."""


def _vllm_spec(config: RunConfig, engine: VllmEngineConfig, policy: ServedPolicy) -> Any:
    from agentrl.engines.vllm.launch import ModelSpec

    if policy.device.index:
        raise ConfigError(
            f"model.device={policy.device}: vLLM's process takes the first GPU that it sees, and "
            f"reads the policy's weights there; set CUDA_VISIBLE_DEVICES={policy.device.index} "
            "and model.device=cuda"
        )
    limits = [context_limit(config, policy), config.rollout.max_context_tokens]
    max_tokens = min((limit for limit in limits if limit), default=None)
    if max_tokens is None:
        raise ConfigError("engine.max_tokens: the model names no limit of its own; set one")
    described = copy.deepcopy(policy.model_config)
    described.architectures = [policy.architecture]
    return ModelSpec(
        config=described, dtype=policy.dtype, device=policy.device.type, max_tokens=max_tokens
    )


def _log_file(config: RunConfig) -> Path:
    """In the run's folder; evaluations outside of a run have none."""
    folder = config.run_dir if config.run_dir.is_dir() else Path(tempfile.gettempdir())
    return folder.resolve() / "vllm.log"
