"""Which inference engine writes the policy's turns, and how weights reach it."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from agentrl.config.base import Section

OnUpdate = Literal["wait", "abort", "continue"]
"""What becomes of requests in flight when new weights come: `wait` lets them finish first;
`abort` ends them and samples their turn again with the new weights; `continue` freezes them and
goes on from the tokens they have, each token carrying the version that wrote it."""


class ParityConfig(Section):
    """The probe that compares the engine's log-probabilities with the trainer's after a sync."""

    every: NonNegativeInt = 1
    """Probe after every so many syncs; 0 never."""
    tolerance: PositiveFloat | None = None
    """The largest difference of a token's log-probability that passes; when unset, 1e-3 where
    both compute in float32, else 0.3."""


class TransformersEngineConfig(Section):
    """The embedded engine: continuous batching over the trainer's own module."""

    type: Literal["transformers"] = "transformers"
    max_batch: PositiveInt = 64
    """Sequences decoded together."""


class VllmEngineConfig(Section):
    """vLLM's asynchronous engine in a process of its own, on this machine."""

    type: Literal["vllm"]
    python: str | None = None
    """The Python that runs vLLM, in an environment of its own that need not have agentrl, such as
    /opt/vllm/bin/python; this one when unset."""
    max_batch: PositiveInt = 64
    """Sequences decoded together (vLLM's `max_num_seqs`)."""
    max_tokens: PositiveInt | None = None
    """The longest sequence (vLLM's `max_model_len`); when unset, what the rollout's budgets and
    the model allow."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The share of the GPU that weights and key-value cache may take."""
    kv_cache_gb: PositiveFloat = 1.0
    """The key-value cache on a CPU, in GiB."""
    cpu_threads: NonNegativeInt = 0
    """Threads of the engine on a CPU; 0 takes what OMP_NUM_THREADS or the machine says."""
    compile: bool = False
    """Capture CUDA graphs and compile the model; on a CPU, compile it."""
    sleep: bool = True
    """Free the device's memory while the trainer updates, where both share one device."""
    on_update: OnUpdate = "wait"
    on_death: Literal["restart", "stop"] = "restart"
    """What to do when the engine's process dies."""
    max_restarts: NonNegativeInt = 3
    """Deaths in a row, without a completed request between them, that are answered by a restart."""
    request_timeout_s: PositiveFloat = 600.0
    """The deadline of one request, restarts of the engine included."""
    hang_timeout_s: PositiveFloat = 300.0
    """Seconds without a token from any request after which the engine's process is taken for hung,
    and replaced."""
    start_timeout_s: PositiveFloat = 600.0
    update_timeout_s: PositiveFloat = 600.0
    """The deadline of one weight update, requests it waits for included."""
    parity: ParityConfig = ParityConfig()
    engine_args: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of vLLM's `AsyncEngineArgs`, by name."""


class HttpEngineConfig(Section):
    """Servers that are already running: one or several replicas of one model."""

    type: Literal["http"]
    urls: Annotated[list[Annotated[str, Field(pattern=r"^https?://[^/]+")]], Field(min_length=1)]
    """Base addresses of the replicas, such as http://127.0.0.1:8000."""
    api: Literal["vllm", "sglang", "openai_chat"] = "vllm"
    """`openai_chat` serves `eval` and `rollout` only: it hands out no token ids."""
    model: str | None = None
    """The served model's name; the server's first one when unset."""
    api_key_env: str | None = None
    """The environment variable that holds the key, if the servers want one."""
    weight_dir: str | None = None
    """Where weight updates are written, a folder that the servers see under the same path; one
    of the system's temporary folders when unset."""
    on_update: Literal["wait", "abort"] = "wait"
    """As of vLLM's engine. Not `continue`: an answer does not say which weights wrote a token."""
    request_timeout_s: PositiveFloat = 600.0
    """The deadline of one request, retries included."""
    update_timeout_s: PositiveFloat = 600.0
    health_every_s: PositiveFloat = 5.0
    """Seconds between health checks of a replica."""
    retries: NonNegativeInt = 5
    """Further attempts of a failed request, with exponential back-off, on a healthy replica."""
    max_connections: PositiveInt = 256
    parity: ParityConfig = ParityConfig()


EngineConfig = Annotated[
    TransformersEngineConfig | VllmEngineConfig | HttpEngineConfig, Field(discriminator="type")
]
