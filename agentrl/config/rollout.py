"""How episodes are rolled out: budgets, sampling, failure policy, engine."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from agentrl.config.base import Section


class Keep(StrEnum):
    """Which part of an over-long tool response is kept."""

    LEFT = "left"
    MIDDLE = "middle"
    RIGHT = "right"


class FailureAction(StrEnum):
    """What becomes of a trajectory with a failure.

    `keep` trains on it as it is; `drop` leaves it out of the loss and the baseline; `mask` keeps
    its reward in the baseline but trains on none of its tokens; `penalise` adds the penalty.
    """

    KEEP = "keep"
    DROP = "drop"
    MASK = "mask"
    PENALISE = "penalise"


class FailurePolicy(Section):
    """What becomes of a trajectory, by the worst thing that happened in it."""

    infra_error: FailureAction = FailureAction.DROP
    """A backend failed after its retries."""
    timeout: FailureAction = FailureAction.KEEP
    """A tool call or the episode passed its deadline."""
    model_error: FailureAction = FailureAction.KEEP
    """A tool call was malformed or refused by the tool."""
    truncated: FailureAction = FailureAction.KEEP
    """The episode ran out of tokens, context or turns."""
    penalty: float = -0.5
    """The reward that `penalise` adds, once per kind."""


class SamplingConfig(Section):
    """The policy's sampling distribution in rollouts."""

    temperature: NonNegativeFloat = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: NonNegativeInt = 0


class RolloutConfig(Section):
    """Budgets of one episode, and how many run at once."""

    group_size: PositiveInt = 8
    """Rollouts per prompt."""
    max_assistant_turns: PositiveInt = 4
    max_user_turns: NonNegativeInt = 4
    """Answers the interaction may give."""
    max_parallel_calls: PositiveInt = 4
    """Tool calls executed of one turn; further ones are answered with an error."""
    max_response_tokens: PositiveInt = 512
    """Tokens after the prompt, tool and user turns included."""
    max_turn_tokens: PositiveInt | None = None
    """Tokens the policy may write in one turn; the whole response budget when unset."""
    max_context_tokens: PositiveInt | None = None
    """Prompt and response together; the model's own limit when unset."""
    max_tool_response_chars: PositiveInt = 2000
    tool_response_keep: Keep = Keep.MIDDLE
    """The part that is KEPT of an over-long tool response (`middle` cuts both ends)."""
    tool_timeout_s: PositiveFloat = 30.0
    episode_timeout_s: PositiveFloat = 600.0
    tool_retries: NonNegativeInt = 2
    """Further attempts after an infrastructure error, with exponential back-off."""
    max_concurrent_episodes: PositiveInt = 256
    tool_format: str = "auto"
    """How the policy writes tool calls: `auto` (by the chat template), `hermes`, `qwen3_xml`,
    `llama3_json`, `pythonic`, or the name of a vLLM tool parser where vLLM is installed."""
    max_staleness: NonNegativeInt = 0
    """Versions that a trained token may lag behind the weights it updates. Above 0 the next
    rollouts run while the trainer updates; 0 is strictly on-policy."""
    oversample: Annotated[float, Field(ge=1)] = 1.0
    """Groups begun for each that an on-policy step needs. The spares stand in for groups that a
    filter refuses (`refill`); with `take: first` also for slow ones."""
    take: Literal["fair", "first"] = "fair"
    """Which groups a step takes. `fair`: every one begun is trained on; what would be too old at
    the next step is waited for, the rest is first come first served. `first`: the first to
    complete, late ones are thrown away: shorter steps, BIASED to short episodes."""
    refill: bool = False
    """Replace groups without a signal (all dropped, or all rewards equal) by further samples."""
    max_refills: PositiveInt = 64
    """Groups that one step may replace before it makes do with what it has."""
    sampling: SamplingConfig = SamplingConfig()
    failures: FailurePolicy = FailurePolicy()
