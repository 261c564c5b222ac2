"""Starting and ending vLLM's asynchronous engine.

It starts from the model's configuration alone, with placeholder weights: the first weight update
brings the real ones, so that a model that was built here, read from a checkpoint or downloaded
comes up the same way.
"""

import asyncio
import json
import logging.config
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl.config.engine import VllmEngineConfig
from agentrl.engines.vllm.versions import check_version, engine_processes
from agentrl.engines.vllm.worker import LOG_ENV
from agentrl.errors import ConfigError, NotReadyError
from agentrl.waits import within

CPU_BLOCK_TOKENS = 32
"""Tokens of a cache block on a CPU: vLLM's 128 would leave most dialogues nothing to share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """What the engine needs to know of the policy before it has its weights."""

    config: Any
    """The transformers configuration."""
    dtype: str
    """As torch names it: `float32`, `bfloat16`."""
    device: str
    """`cpu` or `cuda`."""
    max_tokens: int
    """The longest sequence it will be asked for, prompt included."""


async def start_engine(spec: ModelSpec, config: VllmEngineConfig, *, log_file: Path | None) -> Any:
    """Start an `AsyncLLM` with placeholder weights.

    Raises:
        ConfigError: vLLM does not take the arguments.
        NotReadyError: it is not installed, of another release, or does not come up in time.
    """
    check_version()
    log = log_file or Path(os.devnull)
    before = set(multiprocessing.active_children())
    with tempfile.TemporaryDirectory(prefix="agentrl-vllm-") as folder:
        spec.config.save_pretrained(folder)
        with _environment(log, spec, config), _errors_to(log):
            try:
                return await within(
                    asyncio.to_thread(_start, folder, spec, config, log),
                    "engine vllm: start",
                    "the run",
                    remedy=f"see {log}",
                    deadline_s=config.start_timeout_s,
                )
            except (TimeoutError, asyncio.CancelledError) as error:
                # The thread that waits for them ends when they do.
                for process in set(multiprocessing.active_children()) - before:
                    process.kill()
                if isinstance(error, asyncio.CancelledError):
                    raise
                raise NotReadyError(
                    f"engine.type vllm: the engine did not start within engine.start_timeout_s="
                    f"{config.start_timeout_s:g}; see {log}"
                ) from None


def end_engine(engine: Any) -> None:
    """End an engine's processes, and what it keeps in this one."""
    engine.shutdown()
    # Its finaliser would do this again, at a time when the interpreter is half gone.
    engine.shutdown = _nothing


def kill_engine(engine: Any) -> None:
    """End an engine that may not answer any more."""
    for process in engine_processes(engine):
        if process.is_alive():
            process.kill()
            process.join(10)
    end_engine(engine)


def _nothing() -> None:
    """Stand in for what has been done."""


def _start(folder: str, spec: ModelSpec, config: VllmEngineConfig, log: Path) -> Any:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    # A tool parser may have imported vLLM, and set up its log, before the run had a folder.
    logging.config.dictConfig(_logging_config(log))
    try:
        arguments = AsyncEngineArgs(**_arguments(folder, spec, config))
    except TypeError as error:
        raise ConfigError(
            f"engine.engine_args: {error}; expected arguments of vLLM's AsyncEngineArgs"
        ) from error
    try:
        return AsyncLLM.from_engine_args(arguments)
    except (RuntimeError, ValueError, OSError, ImportError) as error:
        why = " ".join(str(error).split())[:300]
        raise NotReadyError(
            f"engine.type vllm: the engine did not start: {why}; see {log}"
        ) from error


def _arguments(folder: str, spec: ModelSpec, config: VllmEngineConfig) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model": folder,
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "dtype": spec.dtype,
        "max_model_len": spec.max_tokens,
        "max_num_seqs": config.max_batch,
        "enforce_eager": not config.compile,
        "enable_prefix_caching": True,
        # Of the distribution that was sampled from, as `Completion.logprobs` promises.
        "logprobs_mode": "processed_logprobs",
        "worker_extension_cls": "agentrl.engines.vllm.worker.WeightWorker",
        "disable_log_stats": True,
        "seed": 0,
    }
    if spec.device == "cpu":
        arguments["kv_cache_memory_bytes"] = int(config.kv_cache_gb * 2**30)
        arguments["block_size"] = CPU_BLOCK_TOKENS
    else:
        from vllm.config import WeightTransferConfig

        arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
        arguments["enable_sleep_mode"] = config.sleep
        arguments["weight_transfer_config"] = WeightTransferConfig(backend="ipc")
    return arguments | config.engine_args


@contextmanager
def _environment(log: Path, spec: ModelSpec, config: VllmEngineConfig) -> Iterator[None]:
    """Set what vLLM and its process read from the environment, while they start."""
    wanted = {LOG_ENV: str(log), "VLLM_NO_USAGE_STATS": "1"}
    if spec.device != "cpu":
        # CUDA memory handles travel pickled between the two processes of this one program, so it
        # stays set: this process reads it at every weight update.
        os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"
    elif config.cpu_threads:
        wanted["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{config.cpu_threads - 1}"
    before = {name: os.environ.get(name) for name in wanted}
    with tempfile.NamedTemporaryFile("w", suffix=".json", prefix="agentrl-vllm-") as file:
        if "VLLM_LOGGING_CONFIG_PATH" not in os.environ:
            json.dump(_logging_config(log), file)
            file.flush()
            wanted["VLLM_LOGGING_CONFIG_PATH"] = file.name
            before["VLLM_LOGGING_CONFIG_PATH"] = None
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


@contextmanager
def _errors_to(log: Path) -> Iterator[None]:
    """Let processes that start meanwhile inherit the log as their standard error."""
    # They write to it before any logging is set up, and before the worker can redirect it.
    before, file = os.dup(2), os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(file, 2)
    os.close(file)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _logging_config(log: Path) -> dict[str, Any]:
    """Python's logging configuration: vLLM's records to the file, nowhere else."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {
            "file": {"class": "logging.FileHandler", "filename": str(log), "formatter": "line"}
        },
        "loggers": {"vllm": {"handlers": ["file"], "level": "INFO", "propagate": False}},
    }
