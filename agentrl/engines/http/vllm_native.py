"""A plain `vllm serve`, with nothing of ours beside it: what it can do, and how it is asked.

    /server_info, /openapi.json --> which routes and settings it has --> one `ServerApi`

Tokens go in and come out by `/inference/v1/generate` where the server has it, so that no text is
tokenised anew. Weights are read from a folder by the worker's own `reload_weights`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from agentrl.contracts.engine import Completion, Sampling
from agentrl.engines.http.api import Call, ServerApi, VllmApi
from agentrl.engines.tokens import completion
from agentrl.errors import ConfigError, EngineError

GENERATE, VERSION = "/inference/v1/generate", "/update_weight_version"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerFacts:
    """What a server says of itself; `trainable` when it has the routes of development."""

    trainable: bool
    tokens: bool
    versions: bool
    own_worker: bool
    placeholders: bool
    logprobs_mode: str | None

    @classmethod
    def read(
        cls, info: Mapping[str, Any] | None, routes: Mapping[str, Any] | None
    ) -> "ServerFacts":
        """Read them from `/server_info?config_format=json` and `/openapi.json`; None: not there."""
        config = (info or {}).get("vllm_config")
        # An old release answers with a text.
        parts: Mapping[str, Any] = config if isinstance(config, Mapping) else {}
        paths = (routes or {}).get("paths", {})
        worker = (parts.get("parallel_config") or {}).get("worker_extension_cls")
        return cls(
            trainable=bool(parts),
            tokens=GENERATE in paths,
            versions=VERSION in paths,
            own_worker=bool(worker),
            placeholders=(parts.get("load_config") or {}).get("load_format") == "dummy",
            logprobs_mode=(parts.get("model_config") or {}).get("logprobs_mode"),
        )


def choose_api(model: str, facts: ServerFacts, *, url: str) -> ServerApi:
    """Return how a server is asked: by its own interfaces, unless it has a worker of ours.

    Raises:
        ConfigError: its log-probabilities are not those of the distribution sampled from.
    """
    if facts.logprobs_mode not in (None, "processed_logprobs"):
        raise ConfigError(
            f"engine.urls: {url} should give the log-probabilities of the distribution that it "
            f"samples from, but was started with --logprobs-mode {facts.logprobs_mode}; start it "
            "with --logprobs-mode processed_logprobs"
        )
    if not facts.trainable or facts.own_worker:
        return VllmApi(model)
    return NativeVllmApi(model, facts)


class NativeVllmApi(VllmApi):
    """A plain server, in whose environment agentrl need not be.

    Start it with `VLLM_SERVER_DEV_MODE=1`, `--logprobs-mode processed_logprobs` and, for token
    ids in and out, `--enable-scale-out` or `--tokens-only`.
    """

    update_needs = (
        "start it with VLLM_SERVER_DEV_MODE=1, with the policy's architecture and dtype, where it "
        "sees engine.weight_dir"
    )

    def __init__(self, model: str, facts: ServerFacts) -> None:
        super().__init__(model)
        self._facts = facts

    @override
    def generate(self, prompt_ids: list[int], sampling: Sampling) -> Call:
        if not self._facts.tokens:
            call = super().generate(prompt_ids, sampling)
            return dataclasses.replace(call, body={**call.body, **_NEUTRAL})
        parameters = {
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "stop_token_ids": list(sampling.stop_token_ids),
            "ignore_eos": True,
            "logprobs": 0,
            "detokenize": False,
            **_NEUTRAL,
        }
        body = {"model": self._model, "token_ids": prompt_ids, "sampling_params": parameters}
        return Call(path=GENERATE, body=body)

    @override
    def completion(self, answer: Any, version: int) -> Completion | None:
        if not self._facts.tokens:
            return super().completion(answer, version)
        choice = answer["choices"][0]
        reason = choice["finish_reason"]
        if reason not in ("stop", "length"):
            return None
        token_ids = choice["token_ids"]
        entries = (choice.get("logprobs") or {}).get("content") or []
        if [entry.get("token_id") for entry in entries] != token_ids:
            raise EngineError(
                f"{GENERATE}: expected a log-probability for each of {len(token_ids)} token ids, "
                f"got {len(entries)}; use a vLLM of 0.32 or later, or start it without "
                "--enable-scale-out"
            )
        return completion(token_ids, [entry["logprob"] for entry in entries], version, reason)

    @override
    def score(self, token_ids: Sequence[int]) -> Call:
        if not self._facts.tokens:
            return super().score(token_ids)
        parameters = {"max_tokens": 1, "prompt_logprobs": 0, "detokenize": False, **_NEUTRAL}
        body = {"model": self._model, "token_ids": list(token_ids), "sampling_params": parameters}
        return Call(path=GENERATE, body=body)

    @override
    def scores(self, answer: Any, token_ids: Sequence[int]) -> list[float]:
        if not self._facts.tokens:
            return super().scores(answer, token_ids)
        pairs = zip(token_ids[1:], answer["prompt_logprobs"][1:], strict=True)
        return [position[str(token)]["logprob"] for token, position in pairs]

    @override
    def update(self, folder: str) -> list[Call]:
        calls = [Call(path="/pause?mode=abort")]
        if self._facts.placeholders:
            # A server that was started with placeholders would else "load" placeholders again.
            real = {"overrides": {"load_config": {"load_format": "auto"}}}
            calls.append(_worker("update_config", real))
        calls += [
            _worker("reload_weights", {"weights_path": folder}),
            Call(path="/reset_prefix_cache"),
        ]
        if self._facts.versions:
            version = folder.rpartition("/")[2]
            calls.append(Call(path=VERSION, body={"new_version": version}))
        return [*calls, Call(path="/resume")]


_NEUTRAL = {
    # Else the server's `generation_config` decides, and its log-probabilities are of another law.
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "min_p": 0.0,
}


def _worker(method: str, kwargs: Mapping[str, Any]) -> Call:
    return Call(path="/collective_rpc", body={"method": method, "kwargs": kwargs})
