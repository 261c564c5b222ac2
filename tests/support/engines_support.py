"""What tests of engines share: requests and completions as lists, and published weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentrl.contracts.engine import Engine, Prompt, Sampling
from agentrl.engines.weights import LiveWeights


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A completion with lists in the place of arrays."""

    token_ids: list[int]
    logprobs: list[float]
    versions: list[int]
    finish_reason: str


async def ask(
    engine: Engine, token_ids: Sequence[int], sampling: Sampling, *, session: str
) -> Written:
    prompt = Prompt(token_ids=np.asarray(token_ids, np.int32))
    done = await engine.generate(prompt, sampling, session=session)
    assert (done.token_ids.dtype, done.versions.dtype) == (np.int32, np.int32)
    assert done.logprobs.dtype == np.float32
    return Written(
        token_ids=done.token_ids.tolist(),
        logprobs=done.logprobs.tolist(),
        versions=done.versions.tolist(),
        finish_reason=done.finish_reason,
    )


def published(module: Any, version: int) -> LiveWeights:
    """Return a publisher of a module's weights."""
    weights = LiveWeights(module)
    weights.version = version
    return weights
