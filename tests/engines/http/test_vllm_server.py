import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from engines_support import ask, published
from vllm_support import disturb, largest_gap, reference_logprobs, require_vllm, tiny_model

from agentrl.config.engine import HttpEngineConfig
from agentrl.contracts.engine import Sampling
from agentrl.engines.http.engine import HttpEngine

require_vllm()
pytestmark = [pytest.mark.vllm, pytest.mark.slow]

PROMPT = list(range(4, 84))
WORDS = [
    "--dtype", "float32", "--enforce-eager", "--max-model-len", "256",
    "--kv-cache-memory-bytes", str(2**28), "--logprobs-mode", "processed_logprobs",
    "--generation-config", "vllm", "--worker-extension-cls",
    "agentrl.engines.vllm.worker.WeightWorker",
]  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def url(model: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Not `vllm serve`: the CPU build's program asks for the version of a package named vllm.
    module = "vllm.entrypoints.openai.api_server"
    command = [sys.executable, "-m", module, "--model", str(folder / "model"), *WORDS]
    log = (folder / "log").open("w")
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        env=os.environ | {"VLLM_SERVER_DEV_MODE": "1"},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert server.poll() is None, (folder / "log").read_text()[-3000:]
            try:
                if httpx.get(f"{address}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(60)
        log.close()


async def test_tokens_log_probabilities_and_updates_are_the_trainers(url: str, model: Any) -> None:
    engine = HttpEngine(HttpEngineConfig(type="http", urls=[url]))
    await engine.start()
    try:
        for version, temperature in ((1, 1.0), (2, 0.7)):
            disturb(model, 0.1, seed=version)
            await engine.update_weights(published(model, version))
            sampling = Sampling(max_tokens=30, temperature=temperature)
            done = await ask(engine, PROMPT, sampling, session="a")
            whole = reference_logprobs(model, PROMPT + done.token_ids, temperature)
            assert largest_gap(done.logprobs, whole[len(PROMPT) - 1 :]) < 1e-3
            assert done.versions == [version] * 30
            [scores] = await engine.score(PROMPT)
            assert largest_gap(scores, reference_logprobs(model, PROMPT)) < 1e-3
    finally:
        await engine.close()
