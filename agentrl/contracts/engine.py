"""What the rollout asks of an inference engine: token ids in, token ids and log-probabilities out.

Engines live one per file in `agentrl.engines`. They never see text, templates or tools.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from agentrl.contracts.message import Message

if TYPE_CHECKING:
    import torch

    from agentrl.contracts.call import ParsedTurn


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How one request is sampled.

    `temperature` 0 means greedy. `top_p` 1 and `top_k` 0 leave the distribution whole. The seed
    belongs to the request alone: its tokens do not depend on what else is in the batch.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values that no engine could honour.

        Raises:
            ValueError: a parameter is out of its range.
        """
        ranges = (
            ("max_tokens", self.max_tokens, self.max_tokens >= 1, "at least 1"),
            ("temperature", self.temperature, self.temperature >= 0, "0 (greedy) or above"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k, self.top_k >= 0, "0 (no limit) or above"),
        )
        for name, value, valid, expected in ranges:
            if not valid:
                raise ValueError(f"sampling.{name} should be {expected}, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What the policy wrote.

    `logprobs[i]` is the log-probability of `token_ids[i]` under the distribution it was drawn
    from (after temperature, top-k and top-p; for greedy requests, the plain softmax). A stop
    token that was sampled is the last token. `policy_versions[i]` is the version of the weights
    that wrote `token_ids[i]`.
    """

    token_ids: list[int]
    logprobs: list[float]
    finish_reason: Literal["stop", "length"]
    policy_versions: list[int]


class WeightSource(Protocol):
    """The trainer's current weights, streamed by name.

    Whoever changes the weights holds `lock` until the engines have them; whoever reads them at
    another time (an engine that has to start again) holds it meanwhile.
    """

    @property
    def lock(self) -> asyncio.Lock:
        """Held while the weights change."""

    def named_tensors(self) -> "Iterator[tuple[str, torch.Tensor]]":
        """Yield every parameter once, detached."""


class Engine(Protocol):
    """An inference engine. All methods may be called concurrently from one event loop.

    `failure` is None until the engine has failed for good; then it says why, and every request
    fails at once.
    """

    failure: str | None

    async def generate(
        self, prompt_ids: list[int], sampling: Sampling, *, session: str
    ) -> Completion:
        """Complete one prompt. `session` is the episode's id, stable over its turns.

        Raises:
            EngineError: when the engine fails; the request may be sent again.
        """

    async def score(self, token_ids: list[int]) -> list[list[float]]:
        """Return the log-probability of every token but the first, given those before it.

        It is the plain softmax's, at temperature 1. One list for each copy of the weights that
        serves: one alone, unless the engine has replicas.

        Raises:
            EngineError: when the engine fails.
        """

    async def update_weights(self, weights: WeightSource, version: int) -> None:
        """Take the trainer's weights; later tokens carry `version`."""

    async def sleep(self) -> None:
        """Free what the trainer may need (device memory) until `wake`."""

    async def wake(self) -> None:
        """Make ready to generate again."""

    def drain_metrics(self) -> dict[str, float]:
        """Return what the engine measured of itself since the last call."""

    async def close(self) -> None:
        """End the engine; requests in flight fail with `EngineError`."""


@runtime_checkable
class ChatBackend(Protocol):
    """An engine that is given messages and gives none of its tokens: it cannot be trained with."""

    async def reply(
        self,
        messages: "Sequence[Message]",
        tools: "Sequence[Mapping[str, Any]]",
        sampling: Sampling,
        *,
        session: str,
    ) -> "ParsedTurn":
        """Return the policy's next turn.

        Raises:
            EngineError: when the endpoint fails.
        """
