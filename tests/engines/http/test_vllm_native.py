from typing import Any

import pytest

from agentrl.contracts.engine import Sampling
from agentrl.engines.http.api import VllmApi
from agentrl.engines.http.vllm_native import NativeVllmApi, ServerFacts, choose_api
from agentrl.errors import ConfigError, EngineError

ROUTES = {"paths": {"/inference/v1/generate": {}, "/update_weight_version": {}}}


def info(**changes: Any) -> dict[str, Any]:
    """What `/server_info` says, as far as it is read."""
    config: dict[str, Any] = {
        "parallel_config": {"worker_extension_cls": ""},
        "load_config": {"load_format": "auto"},
        "model_config": {"logprobs_mode": "processed_logprobs"},
    }
    return {"vllm_config": config | changes}


def api_of(server_info: Any, routes: Any = ROUTES) -> VllmApi:
    api = choose_api("m", ServerFacts.read(server_info, routes), url="http://a")
    assert isinstance(api, VllmApi)
    return api


def paths(api: VllmApi) -> list[str]:
    return [call.path for call in api.update("/weights/v7")]


def test_a_plain_server_reads_the_folder_by_its_own_method_and_says_its_version() -> None:
    calls = api_of(info()).update("/weights/v7")
    assert [call.path for call in calls] == [
        "/pause?mode=abort", "/collective_rpc", "/reset_prefix_cache", "/update_weight_version",
        "/resume",
    ]  # fmt: skip
    assert calls[1].body == {"method": "reload_weights", "kwargs": {"weights_path": "/weights/v7"}}
    assert calls[3].body == {"new_version": "v7"}


def test_a_server_with_placeholders_is_first_told_to_read_real_weights() -> None:
    calls = api_of(info(load_config={"load_format": "dummy"})).update("/weights/v7")
    assert [c.body["method"] for c in calls if c.path == "/collective_rpc"] == [
        "update_config", "reload_weights",
    ]  # fmt: skip


def test_an_older_server_is_asked_by_completions_and_told_no_version() -> None:
    api = api_of(info(), {"paths": {}})
    assert isinstance(api, NativeVllmApi)
    call = api.generate([1, 2], Sampling(max_tokens=3))
    assert (call.path, call.body["repetition_penalty"]) == ("/v1/completions", 1.0)
    assert "/update_weight_version" not in paths(api)


def test_a_server_with_our_worker_and_one_that_says_nothing_are_asked_as_before() -> None:
    ours = info(
        parallel_config={"worker_extension_cls": "agentrl.engines.vllm.worker.WeightWorker"}
    )
    for api in (api_of(ours), api_of(None, None), api_of({"vllm_config": "a text"})):
        assert type(api) is VllmApi


def test_a_server_with_log_probabilities_of_another_law_is_refused() -> None:
    raw = info(model_config={"logprobs_mode": "raw_logprobs"})
    with pytest.raises(ConfigError, match=r"http://a .*start it with --logprobs-mode processed"):
        api_of(raw)


def test_tokens_come_with_their_log_probabilities_or_not_at_all() -> None:
    api = api_of(info())
    content = [{"token_id": 5, "logprob": -1.0}, {"token_id": 6, "logprob": -2.0}]
    choice = {"finish_reason": "stop", "token_ids": [5, 6], "logprobs": {"content": content}}
    done = api.completion({"choices": [choice]}, 3)
    assert done is not None
    assert (done.token_ids.tolist(), done.logprobs.tolist()) == ([5, 6], [-1.0, -2.0])
    assert done.versions.tolist() == [3, 3]
    assert api.completion({"choices": [choice | {"finish_reason": "abort"}]}, 3) is None
    with pytest.raises(EngineError, match=r"a log-probability for each of 2 token ids, got 1"):
        api.completion({"choices": [choice | {"logprobs": {"content": content[:1]}}]}, 3)
