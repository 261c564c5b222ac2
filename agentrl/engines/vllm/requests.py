"""One request to an `AsyncLLM`, and what its answer says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agentrl.contracts.engine import Completion
from agentrl.engines.tokens import completion
from agentrl.errors import EngineError


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A finished request; `cached_tokens` of its prompt came from the prefix cache."""

    completion: Completion
    cached_tokens: int
    raw: Any


async def run_request(
    engine: Any,
    prompt_ids: list[int],
    parameters: Any,
    request_id: str,
    *,
    version: Callable[[], int],
    heard: Callable[[], None],
) -> Answer | None:
    """Send a request and collect its tokens, each stamped with the version that wrote it.

    `heard` is called when tokens come. None is returned if a weight update ended the request:
    what it wrote is of no use then.

    Raises:
        EngineError: it ended for another reason than a stop token or its length.
    """
    token_ids: list[int] = []
    logprobs: list[float] = []
    versions: list[int] = []
    cached, reason, output = 0, None, None
    prompt = {"prompt_token_ids": prompt_ids}
    async for output in engine.generate(prompt, parameters, request_id):
        heard()
        piece = output.outputs[0]
        reason = piece.finish_reason
        if reason == "abort":
            return None
        token_ids += piece.token_ids
        if piece.logprobs:
            pairs = zip(piece.token_ids, piece.logprobs, strict=True)
            logprobs += [position[token].logprob for token, position in pairs]
        versions += [version()] * len(piece.token_ids)
        cached = max(cached, output.num_cached_tokens or 0)
    if reason not in ("stop", "length"):
        raise EngineError(f"request {request_id}: vLLM ended it with {reason!r}")
    written = completion(token_ids, logprobs, versions, reason)
    return Answer(completion=written, cached_tokens=cached, raw=output)


def read_scores(output: Any, token_ids: Sequence[int]) -> list[float]:
    """Return the log-probabilities of the prompt's tokens after the first."""
    positions = zip(token_ids[1:], output.prompt_logprobs[1:], strict=True)
    return [position[token].logprob for token, position in positions]
