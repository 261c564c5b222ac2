"""What the engine asks of a server, whatever its make; one class a make.

A `ServerApi` only says which request to send and how to read the answer. Routing, retries and
deadlines are the engine's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from typing_extensions import override

from agentrl.contracts.engine import Completion, Sampling
from agentrl.engines.tokens import completion
from agentrl.errors import EngineError


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One POST: a path with its query, and a JSON body."""

    path: str
    body: Mapping[str, Any] = field(default_factory=dict)


class ServerApi(Protocol):
    """A make of server. `update_needs` says how to start one that takes weights."""

    update_needs: str

    def generate(self, prompt_ids: list[int], sampling: Sampling) -> Call:
        """Return the request for a completion."""

    def completion(self, answer: Any, version: int) -> Completion | None:
        """Read a completion; None when the server aborted it.

        Raises:
            EngineError: the answer lacks token ids or log-probabilities.
        """

    def score(self, token_ids: Sequence[int]) -> Call:
        """Return the request for the log-probabilities of given tokens."""

    def scores(self, answer: Any, token_ids: Sequence[int]) -> list[float]:
        """Read them: of every token but the first."""

    def update(self, folder: str) -> list[Call]:
        """Return the requests that load a folder's weights; none of the engine's is in flight."""


class VllmApi(ServerApi):
    """`vllm serve`, 0.24 to 0.33, with our worker, or of which nothing but `/v1` is known.

    A plain server is asked as `vllm_native` says. Start it with `VLLM_SERVER_DEV_MODE=1`,
    `--logprobs-mode processed_logprobs`, `--generation-config vllm` and `--worker-extension-cls
    agentrl.engines.vllm.worker.WeightWorker`. Seeds are not sent: a server on a CPU dies of
    one whose prompt it prefills in pieces.
    """

    update_needs = (
        "start it with VLLM_SERVER_DEV_MODE=1 (without --worker-extension-cls, or with "
        "agentrl.engines.vllm.worker.WeightWorker in an environment that has agentrl), where it "
        "sees engine.weight_dir"
    )

    def __init__(self, model: str) -> None:
        self._model = model

    @override
    def generate(self, prompt_ids: list[int], sampling: Sampling) -> Call:
        body = {
            "model": self._model,
            "prompt": prompt_ids,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "stop_token_ids": list(sampling.stop_token_ids),
            "ignore_eos": True,
            "logprobs": 0,
            "return_token_ids": True,
        }
        return Call(path="/v1/completions", body=body)

    @override
    def completion(self, answer: Any, version: int) -> Completion | None:
        choice = answer["choices"][0]
        if choice["finish_reason"] not in ("stop", "length"):
            return None
        return _completion(
            choice.get("token_ids"),
            (choice.get("logprobs") or {}).get("token_logprobs"),
            choice["finish_reason"],
            version,
        )

    @override
    def score(self, token_ids: Sequence[int]) -> Call:
        body = {
            "model": self._model,
            "prompt": list(token_ids),
            "max_tokens": 1,
            "prompt_logprobs": 0,
        }
        return Call(path="/v1/completions", body=body)

    @override
    def scores(self, answer: Any, token_ids: Sequence[int]) -> list[float]:
        positions = answer["choices"][0]["prompt_logprobs"][1:]
        pairs = zip(token_ids[1:], positions, strict=True)
        return [position[str(token)]["logprob"] for token, position in pairs]

    @override
    def update(self, folder: str) -> list[Call]:
        load = {"method": "load_weights_from_folder", "args": [folder]}
        return [
            Call(path="/pause?mode=abort"),
            Call(path="/collective_rpc", body=load),
            Call(path="/reset_prefix_cache"),
            Call(path="/resume"),
        ]


class SglangApi(ServerApi):
    """SGLang's native `/generate`. Its log-probabilities are of the distribution sampled from."""

    update_needs = "it has to see engine.weight_dir"

    @override
    def generate(self, prompt_ids: list[int], sampling: Sampling) -> Call:
        parameters: dict[str, Any] = {
            "max_new_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "stop_token_ids": list(sampling.stop_token_ids),
            "ignore_eos": True,
        }
        if sampling.seed is not None:
            parameters["sampling_seed"] = sampling.seed % 2**31
        body = {"input_ids": prompt_ids, "sampling_params": parameters, "return_logprob": True}
        return Call(path="/generate", body=body)

    @override
    def completion(self, answer: Any, version: int) -> Completion | None:
        meta = answer["meta_info"]
        reason = (meta.get("finish_reason") or {}).get("type")
        if reason not in ("stop", "length"):
            return None
        entries = meta.get("output_token_logprobs") or []
        token_ids = answer.get("output_ids") or [entry[1] for entry in entries]
        return _completion(token_ids, [entry[0] for entry in entries], reason, version)

    @override
    def score(self, token_ids: Sequence[int]) -> Call:
        body = {
            "input_ids": list(token_ids),
            "sampling_params": {"max_new_tokens": 1, "temperature": 1.0},
            "return_logprob": True,
            "logprob_start_len": 0,
        }
        return Call(path="/generate", body=body)

    @override
    def scores(self, answer: Any, token_ids: Sequence[int]) -> list[float]:
        return [float(entry[0]) for entry in answer["meta_info"]["input_token_logprobs"][1:]]

    @override
    def update(self, folder: str) -> list[Call]:
        return [
            # Other modes keep the requests of others, and their cache with them.
            Call(path="/pause_generation", body={"mode": "abort"}),
            Call(path="/update_weights_from_disk", body={"model_path": folder}),
            Call(path="/flush_cache"),
            Call(path="/continue_generation"),
        ]


def _completion(
    token_ids: list[int] | None, logprobs: list[float] | None, reason: Any, version: int
) -> Completion:
    if token_ids is None or logprobs is None or len(token_ids) != len(logprobs):
        raise EngineError(
            "the server's answer has no token ids with a log-probability each; use a vLLM of 0.24 "
            "or later, or SGLang, as engine.api says"
        )
    return completion(token_ids, logprobs, version, reason)
