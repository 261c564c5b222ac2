import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vllm_support import IMPORT_WARNINGS, require_vllm, smollm2

from agentrl.algorithms.samples import TrainSample
from agentrl.config.engine import ParityConfig
from agentrl.config.load import validate
from agentrl.config.run import RunConfig
from agentrl.config.train import OptimizerConfig
from agentrl.engines.parity import ParityProbe
from agentrl.engines.score import score_tokens
from agentrl.engines.served import ServedPolicy, make_engine
from agentrl.engines.vllm.engine import VllmEngine
from agentrl.engines.vllm.versions import engine_processes
from agentrl.engines.weights import LiveWeights
from agentrl.errors import RunError
from agentrl.learner.imitation import imitate
from agentrl.learner.models import load_model
from agentrl.learner.optimizer import Optimizer
from agentrl.runs.compute import Compute
from agentrl.trainer.trainer import Trainer

require_vllm()
pytestmark = [pytest.mark.vllm, pytest.mark.slow, *IMPORT_WARNINGS]

ROOT = Path(__file__).parents[2]
TEXT = "A farmer has 12 hens. Each lays 5 eggs a week. How many eggs does he get in 3 weeks? "


def metrics_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def vllm_config(make_config: Any) -> Any:
    """Make a tiny run with vLLM; keyword arguments replace sections."""

    def make(**sections: Any) -> RunConfig:
        engine = {"type": "vllm", "kv_cache_gb": 0.25, "max_tokens": 256}
        engine |= sections.pop("engine", {})
        tree = make_config(**sections).model_dump(mode="json")
        tree["model"]["builder"] = f"{Path(__file__).parent / 'vllm_policy.py'}:build"
        tree["engine"] = engine
        return validate(RunConfig, tree, source="test")

    return make


async def test_parity_holds_after_each_of_twenty_updates_of_smollm2(tmp_path: Path) -> None:
    config = validate(
        RunConfig,
        {
            "output_dir": str(tmp_path),
            "model": {"path": str(smollm2()), "dtype": "float32", "device": "cpu"},
            "engine": {"type": "vllm", "max_tokens": 256, "kv_cache_gb": 0.5},
        },
        source="test",
    )
    model = load_model(config.model, base=None, seed=0)
    optimizer = Optimizer(model.model, OptimizerConfig(learning_rate=1e-4), 20)
    ids = model.tokenizer(TEXT * 2)["input_ids"]
    mask = np.array([0, *[1] * (len(ids) - 1)], np.uint8)
    batch = [TrainSample(token_ids=np.array(ids, np.int32), loss_mask=mask)]
    compute, weights = Compute(), LiveWeights(model.model)

    async def score(token_ids: list[int]) -> list[float]:
        return await compute.run(partial(score_tokens, model.model, token_ids))

    probe = ParityProbe(ids, ParityConfig(tolerance=1e-3), score=score, exact=True)
    served = ServedPolicy.of(model.model, model.tokenizer, model.device, model.max_tokens, weights)
    engine, start = make_engine(config, served)
    try:
        await start()
        losses = []
        for version in range(1, 21):
            step = partial(imitate, model, optimizer, batch, max_tokens=1024)
            async with weights.writing(version):
                losses.append((await compute.run(step))["sft/loss"])
            await engine.update_weights(weights)
            gap = await probe.check(engine, version)
            assert 0 < gap["engine/parity"] <= 1e-3
        # The updates were no trifles.
        assert losses[-1] < losses[0] / 2
    finally:
        await engine.close()
        compute.close()


def test_without_the_repair_of_the_tied_head_the_probe_stops_the_run(vllm_config: Any) -> None:
    config = vllm_config(
        engine={"engine_args": {"worker_extension_cls": "stale_head.StaleHeadWorker"}}
    )
    with pytest.raises(RunError, match=r"parity probe: after the weight update to version 0, .*"):
        Trainer(config).train()


def test_rollouts_overlap_with_updates_within_the_bound(vllm_config: Any) -> None:
    config = vllm_config(
        rollout={"group_size": 4, "max_response_tokens": 24, "max_staleness": 1},
        train={"steps": 5, "prompts_per_step": 2},
        engine={"on_update": "continue"},
    )
    result = Trainer(config).train()
    steps = metrics_of(result.run_dir)
    assert [m["step"] for m in steps] == [1, 2, 3, 4, 5]
    ages = [m["rollout/staleness/max"] for m in steps]
    assert ages[0] == 0
    assert max(ages) == 1
    assert all(m["engine/parity"] < 1e-3 for m in steps)


@pytest.mark.parametrize("on_death", ["restart", "stop"])
async def test_an_engine_killed_in_mid_rollout_comes_back_or_stops_the_run(
    vllm_config: Any, on_death: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines: list[Any] = []
    start = VllmEngine.start

    async def noted(self: VllmEngine) -> None:
        engines.append(self)
        await start(self)

    monkeypatch.setattr(VllmEngine, "start", noted)
    config = vllm_config(
        rollout={"group_size": 8, "max_response_tokens": 200},
        train={"steps": 3, "prompts_per_step": 2},
        engine={"on_death": on_death},
    )
    trainer = Trainer(config)
    running = asyncio.create_task(trainer.run())
    async with asyncio.timeout(120):
        while trainer.progress.step < 1 and not running.done():
            await asyncio.sleep(0.02)
    [engine] = engines
    os.kill(engine_processes(engine._running.llm)[0].pid, signal.SIGKILL)
    if on_death == "restart":
        assert (await running).steps == 3
        steps = metrics_of(config.run_dir)
        assert [m["step"] for m in steps] == [1, 2, 3]
        assert all(m["rollout/dropped"] == 0 for m in steps)
        assert steps[-1]["engine/restarts"] == 1
    else:
        with pytest.raises(RunError, match=r"engine\.on_death is `stop`.*continue with --resume"):
            await running
        assert (config.run_dir / "latest").read_text().strip() == "step-1"


def test_the_calculator_trains_to_the_quick_starts_success(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "agentrl", "train", "tasks/calculator/train.yaml",
        "engine.type=vllm", f"output_dir={tmp_path}", "name=calc",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    said = re.search(
        r"success on held-out problems: ([\d.]+)% before, ([\d.]+)% after", done.stdout
    )
    assert said, done.stdout
    assert float(said[1]) < 60
    assert float(said[2]) >= 90
    # What vLLM says belongs in its log, not over the display.
    assert "INFO" not in done.stdout + done.stderr
    assert "vllm" in (tmp_path / "calc" / "vllm.log").read_text()
    gaps = [m["engine/parity"] for m in metrics_of(tmp_path / "calc") if m["phase"] == "train"]
    assert len(gaps) == 100
    assert max(gaps) <= 1e-3
