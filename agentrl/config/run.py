"""The root of the configuration tree, and the sections that say what is trained on what."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, FiniteFloat, SerializeAsAny, field_validator, model_validator

from agentrl.config.base import Section
from agentrl.config.engine import EngineConfig, TransformersEngineConfig
from agentrl.config.flow import FlowConfig
from agentrl.config.rewards import RewardConfig, check_names, check_weights
from agentrl.config.rollout import RolloutConfig
from agentrl.config.sandbox import AutoSandboxConfig, SandboxConfig
from agentrl.config.train import (
    AlgorithmConfig,
    AnyAlgorithmConfig,
    CheckpointConfig,
    EvalConfig,
    OptimizerConfig,
    SFTConfig,
    TrainConfig,
)
from agentrl.config.watch import WatchConfig


class ModelConfig(Section):
    """The policy: a Hugging Face folder or hub name, or a builder that makes one from scratch."""

    path: str | None = None
    builder: str | None = None
    """Plugin reference of `(seed: int) -> (model, tokenizer)`; excludes `path`."""
    chat_template: str | None = None
    """A Jinja file, or the name of a shipped template, that replaces the tokenizer's own."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 where the device computes in it, else float32."""
    device: str = "auto"
    """`auto`: cuda where there is one, else cpu."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> "ModelConfig":
        if (self.path is None) == (self.builder is None):
            raise ValueError("give exactly one of `path` (folder or hub name) and `builder`")
        return self


class TaskConfig(Section):
    """Samples and their score."""

    class_name: str | None = None
    """Plugin reference of a `BaseTask`; when unset, verl or TRL rows are read."""
    config: dict[str, Any] = Field(default_factory=dict)
    train: str | None = None
    """A .jsonl or .parquet file, or a hub dataset `name[:config][:split]`."""
    test: str | None = None


class RunConfig(Section):
    """Everything that decides a run. `agentrl config show` prints it resolved."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9._-]+$")
    """The run's folder under `output_dir`."""
    output_dir: Path = Path("runs")
    seed: int = 0
    deterministic: bool = False
    """Make a run repeatable bit by bit whatever the scheduling; slower (no shared decoding)."""
    model: ModelConfig
    task: TaskConfig = TaskConfig()
    tools: str | list[dict[str, Any]] | None = None
    """A tools YAML in verl's schema, or its list in place."""
    interaction: str | list[dict[str, Any]] | None = None
    """An interaction YAML in verl's schema, or its list in place."""
    rewards: list[RewardConfig] = Field(default_factory=lambda: [RewardConfig()])
    """Who scores a complete group; the task alone when unset."""
    reward_weights: dict[str, FiniteFloat] = Field(default_factory=dict)
    """Weights of what is given within an episode, by source (`tool/NAME`, `tool`, `tool_step`,
    `interaction`, `interaction_turn`); else 1."""
    sandbox: SandboxConfig = AutoSandboxConfig()
    engine: EngineConfig = TransformersEngineConfig()
    rollout: RolloutConfig = RolloutConfig()
    flow: FlowConfig = FlowConfig()
    algorithm: SerializeAsAny[AlgorithmConfig] = AnyAlgorithmConfig()
    """`type` and that algorithm's own options."""
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    sft: SFTConfig = SFTConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    watch: WatchConfig = WatchConfig()
    base_dir: Path | None = Field(default=None, exclude=True)
    """The folder of the YAML file; set by the loader, relative plugin paths resolve against it."""

    @field_validator("sandbox", mode="before")
    @classmethod
    def _auto_unless_said(cls, value: Any) -> Any:
        return {"type": "auto", **value} if isinstance(value, dict) else value

    @field_validator("engine", mode="before")
    @classmethod
    def _embedded_unless_said(cls, value: Any) -> Any:
        return {"type": "transformers", **value} if isinstance(value, dict) else value

    @field_validator("algorithm", mode="before")
    @classmethod
    def _options_unchecked(cls, value: Any) -> Any:
        return AnyAlgorithmConfig.model_validate(value) if isinstance(value, dict) else value

    @field_validator("rewards")
    @classmethod
    def _one_source_an_entry(cls, value: list[RewardConfig]) -> list[RewardConfig]:
        return check_names(value)

    @field_validator("reward_weights")
    @classmethod
    def _one_weight_a_source(cls, value: dict[str, float], info: Any) -> dict[str, float]:
        return check_weights(value, info.data.get("rewards", ()))

    @property
    def run_dir(self) -> Path:
        """`output_dir/name`."""
        return self.output_dir / self.name
