"""What the rollout asks of an inference engine: token ids in, token ids and log-probabilities out.

Engines live one per file in `agentrl.engines`. They never see text, templates or tools.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from agentrl.contracts.call import ParsedTurn
from agentrl.contracts.media import Media
from agentrl.contracts.message import Message

if TYPE_CHECKING:
    import torch


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
class Prompt:
    """What the policy is shown: token ids (int32), and the media that stand among them."""

    token_ids: np.ndarray
    media: tuple[Media, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What the policy wrote; the arrays have one length.

    `logprobs[i]` (float32) is the log-probability of `token_ids[i]` (int32) under the distribution
    it was drawn from (after temperature, top-k and top-p; for greedy requests, the plain softmax).
    A stop token that was sampled is the last token. `versions[i]` (int32) is the version of the
    weights that wrote `token_ids[i]`.
    """

    token_ids: np.ndarray
    logprobs: np.ndarray
    versions: np.ndarray
    finish_reason: Literal["stop", "length"]


class PublishedWeights(Protocol):
    """One version of the policy's weights; they do not change while they are open."""

    @property
    def version(self) -> int:
        """Which version it is."""

    def named_tensors(self) -> "Iterator[tuple[str, torch.Tensor]]":
        """Yield every parameter once, detached."""

    def tied_names(self) -> Mapping[str, str]:
        """Return the other names of parameters that have several, each with the one yielded."""


class WeightPublisher(Protocol):
    """The one owner of which weights are whose: the trainer writes them, engines read them."""

    @property
    def version(self) -> int:
        """The version that was published last."""

    def open(self) -> AbstractAsyncContextManager[PublishedWeights]:
        """Read the published weights; the trainer does not write meanwhile."""


class Engine(Protocol):
    """An inference engine. All methods may be called concurrently from one event loop.

    `failure` is None until the engine has failed for good; then it says why, and every request
    fails at once.
    """

    failure: str | None

    async def generate(self, prompt: Prompt, sampling: Sampling, *, session: str) -> Completion:
        """Complete one prompt. `session` is the episode's id, stable over its turns.

        Raises:
            EngineError: when the engine fails; the request may be sent again.
        """

    async def score(self, token_ids: Sequence[int]) -> list[list[float]]:
        """Return the log-probability of every token but the first, given those before it.

        It is the plain softmax's, at temperature 1. One list for each copy of the weights that
        serves: one alone, unless the engine has replicas.

        Raises:
            EngineError: when the engine fails.
        """

    async def update_weights(self, publisher: WeightPublisher) -> None:
        """Take the weights that are published now; later tokens carry their version.

        An engine that has to start again later takes what is published then.

        Raises:
            EngineError: the engine failed to take them.
        """

    async def sleep(self) -> None:
        """Free what the trainer may need (device memory) until `wake`."""

    async def wake(self) -> None:
        """Make ready to generate again."""

    def drain_metrics(self) -> dict[str, float]:
        """Return what the engine measured of itself since the last call."""

    async def close(self) -> None:
        """End the engine; requests in flight fail with `EngineError`."""


class ChatBackend(Protocol):
    """An engine that is given messages and gives none of its tokens: it cannot be trained with."""

    failure: str | None

    async def reply(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        sampling: Sampling,
        *,
        session: str,
    ) -> ParsedTurn:
        """Return the policy's next turn.

        Raises:
            EngineError: when the endpoint fails.
        """

    def drain_metrics(self) -> dict[str, float]:
        """Return what the backend measured of itself since the last call."""

    async def close(self) -> None:
        """End the backend; requests in flight fail with `EngineError`."""
