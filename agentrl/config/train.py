"""How the policy is improved: algorithm, optimizer, schedule, SFT, evaluation, checkpoints."""

from typing import Annotated, Literal

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from agentrl.config.base import Section


class AlgorithmConfig(Section):
    """The algorithm by its name; its class brings a subclass of this with options of its own."""

    type: str = "grpo"
    """`grpo`, `rloo`, `dr_grpo`, or the plugin reference of an `RLAlgorithm`."""


class AnyAlgorithmConfig(AlgorithmConfig):
    """As the configuration file has it: the options are checked when the class is known."""

    model_config = ConfigDict(extra="allow")


class OptimizerConfig(Section):
    """AdamW and its learning-rate schedule."""

    learning_rate: PositiveFloat = 1e-6
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What follows the warm-up; linear and cosine end at `min_ratio` of the peak."""
    min_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    warmup_steps: NonNegativeInt = 0
    weight_decay: NonNegativeFloat = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    max_grad_norm: PositiveFloat = 1.0


class CorrectionConfig(Section):
    """Importance weights for the gap between the engine's and the trainer's probabilities."""

    type: Literal["none", "truncate", "mask"] = "none"
    """`truncate` bounds the weights from above; `mask` drops what lies outside both bounds."""
    level: Literal["token", "sequence"] = "token"
    """One weight per token, or the product of a sequence's for all of its tokens."""
    low: NonNegativeFloat = 0.5
    high: PositiveFloat = 2.0

    @model_validator(mode="after")
    def _ordered(self) -> "CorrectionConfig":
        if self.low > self.high:
            raise ValueError(f"expected low <= high, got low={self.low} and high={self.high}")
        return self


class TrainConfig(Section):
    """The GRPO loop."""

    steps: PositiveInt = 100
    """Rollout batches; one policy version each."""
    prompts_per_step: PositiveInt = 8
    epochs_per_step: PositiveInt = 1
    """Passes over one rollout batch, with `old_logprobs` fixed."""
    minibatches_per_epoch: PositiveInt = 1
    """Optimizer steps per pass; each accumulates gradients over its micro-batches."""
    max_tokens_per_microbatch: PositiveInt = 8192
    """Tokens per forward pass, packed without padding; raise it until memory is full."""
    correction: CorrectionConfig = CorrectionConfig()
    max_empty_steps: PositiveInt = 3
    """Steps in a row whose trajectories were all dropped before the run stops."""


class SFTOptimizerConfig(OptimizerConfig):
    """AdamW for SFT, which takes larger steps than reinforcement."""

    learning_rate: PositiveFloat = 1e-5


class SFTConfig(Section):
    """Supervised warm start on the task's demonstrations, before or without GRPO."""

    steps: NonNegativeInt = 0
    """Optimizer steps; 0 switches SFT off in `train`."""
    batch_size: PositiveInt = 32
    """Demonstrations per optimizer step."""
    max_length: PositiveInt = 1024
    """Demonstrations longer than this many tokens are left out, and counted."""
    optimizer: SFTOptimizerConfig = SFTOptimizerConfig()


class EvalConfig(Section):
    """Evaluation on the test split: before, every so often, and after."""

    samples: NonNegativeInt = 200
    """0 switches evaluation off."""
    every: NonNegativeInt = 0
    """Steps between evaluations; 0 means only before and after."""
    temperature: NonNegativeFloat = 0.0


class CheckpointConfig(Section):
    """Checkpoints: written atomically, resumed exactly."""

    every: NonNegativeInt = 20
    """Steps between checkpoints; the last step always writes one."""
    keep: PositiveInt = 2
    """How many of the latest to keep."""
