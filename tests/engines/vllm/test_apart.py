import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from engines_support import ask, published
from vllm_support import (
    disturb,
    environment_without_agentrl,
    largest_gap,
    reference_logprobs,
    require_vllm,
    tiny_model,
)

from agentrl.config.engine import VllmEngineConfig
from agentrl.contracts.engine import Sampling
from agentrl.engines.vllm.apart import ApartEngine
from agentrl.engines.vllm.launch import ModelSpec
from agentrl.errors import EngineError

require_vllm()
pytestmark = [pytest.mark.vllm, pytest.mark.slow]

PROMPT = list(range(4, 84))


def engine_of(model: Any, python: Path, log: Path) -> ApartEngine:
    model.config.architectures = [type(model).__name__]
    spec = ModelSpec(config=model.config, dtype="float32", device="cpu", max_tokens=256)
    config = VllmEngineConfig(
        type="vllm", python=str(python), kv_cache_gb=0.25, request_timeout_s=120.0
    )
    return ApartEngine(spec, config, log_file=log)


async def test_it_follows_the_trainer_and_comes_back_with_its_weights_when_killed_or_stops(
    tmp_path: Path,
) -> None:
    model = tiny_model()
    python = environment_without_agentrl(tmp_path / "environment")
    engine = engine_of(model, python, tmp_path / "log")
    await engine.start()
    try:
        for version, temperature in ((1, 1.0), (2, 0.7), (3, 1.0)):
            if version == 3:
                assert engine._server is not None
                os.killpg(engine._server.pid, signal.SIGKILL)
            else:
                disturb(model, 0.1, seed=version)
                await engine.update_weights(published(model, version))
            done = await ask(
                engine, PROMPT, Sampling(max_tokens=30, temperature=temperature), session="a"
            )
            whole = reference_logprobs(model, PROMPT + done.token_ids, temperature)
            assert largest_gap(done.logprobs, whole[len(PROMPT) - 1 :]) < 1e-3
            assert done.versions == [min(version, 2)] * 30
            [scores] = await engine.score(PROMPT)
            assert largest_gap(scores, reference_logprobs(model, PROMPT)) < 1e-3
        assert engine.drain_metrics()["engine/restarts"] == 1
        engine._config = engine._config.model_copy(update={"on_death": "stop"})
        os.killpg(engine._server.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match=r"died with exit status -9, and engine\.on_death is"):
            await ask(engine, PROMPT, Sampling(max_tokens=30), session="a")
    finally:
        await engine.close()


def test_the_python_of_this_environment_is_taken() -> None:
    from agentrl.engines.vllm.interpreter import check_python

    assert check_python(sys.executable)[0].isdigit()
