"""Between the contract's arrays and the lists that engines work with."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from agentrl.contracts.engine import Completion, Prompt
from agentrl.errors import EngineError


def token_list(prompt: Prompt, session: str) -> list[int]:
    """Return a prompt's token ids.

    Raises:
        EngineError: it holds images or videos, which no engine shows to a policy yet.
    """
    if prompt.media:
        kinds = ", ".join(sorted({medium.kind for medium in prompt.media}))
        raise EngineError(
            f"request of {session}: the prompt holds {len(prompt.media)} media ({kinds}), and the "
            f"policy has no eyes yet; use samples and tools of text alone"
        )
    ids: list[int] = np.asarray(prompt.token_ids).tolist()
    return ids


def completion(
    token_ids: Sequence[int] | np.ndarray,
    logprobs: Sequence[float] | np.ndarray,
    versions: int | Sequence[int],
    finish_reason: Literal["stop", "length"],
) -> Completion:
    """Return what was written as arrays; one version stands for all tokens."""
    return Completion(
        token_ids=np.asarray(token_ids, np.int32),
        logprobs=np.asarray(logprobs, np.float32),
        versions=np.full(len(token_ids), versions, np.int32),
        finish_reason=finish_reason,
    )
