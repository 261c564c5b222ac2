"""vLLM as the rollout's engine: speed, cache, weight updates, overlap.

    python tests/bench/engine.py

Everything is measured in one run, the sides of a ratio taking turns, and medians are compared. The
last line is one JSON object: `rollout_vs_offline` (tokens/s, more is better), `prefix_hit_rate` (of
second turns), `sync_vs_memcpy` (time of a weight update over that of copying as many bytes) and
`overlap_vs_sync` (wall time of steps with max_staleness 1 over 0).
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

# As the `agentrl` program sets it, for both sides; read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A fault of vLLM's belongs on the screen here, what it says while all is well does not.
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from two_turns import (
    build_model,
    generate_offline,
    offline_prompts,
    open_offline,
    open_vllm,
    roll_out,
    tiny_tokenizer,
)

from agentrl.config.load import load_config
from agentrl.engines.weights import LiveWeights, ModuleWeights
from agentrl.runs.reporter import Reporter
from agentrl.templates.render import Renderer
from agentrl.trainer.trainer import Trainer

ROOT = Path(__file__).parents[2]
ROUNDS = 5
SYNCS = 7
SFT_STEPS, STEPS, WARM_UP, REPEATS = 300, 9, 2, 2
BENCH = ROOT / "tests" / "bench"


async def bench_rollout(folder: Path) -> dict[str, float]:
    """Compare the rollout's tokens/s with offline generation's."""
    tokenizer = tiny_tokenizer(ROOT)
    model = build_model(len(tokenizer))
    model.save_pretrained(folder)
    engine = await open_vllm(model)
    weights = LiveWeights(model)
    llm = await asyncio.to_thread(open_offline, folder)
    ours, offline, hits = [], [], []
    for number in range(ROUNDS + 1):
        weights.version = number
        await engine.update_weights(weights)  # empties the cache, as every training step does
        engine.drain_metrics()
        speed, trajectories = await roll_out(engine, Renderer(tokenizer), number)
        ours.append(speed)
        hits.append(engine.drain_metrics()["engine/prefix_hit_rate"])
        prompts = offline_prompts(trajectories)
        offline.append(await asyncio.to_thread(generate_offline, llm, prompts))
        print(f"round {number}: rollout {ours[-1]:.0f} tokens/s, offline {offline[-1]:.0f}")
    await engine.close()
    del llm
    ratios = [a / b for a, b in zip(ours[1:], offline[1:], strict=True)]
    return {
        "rollout_vs_offline": round(statistics.median(ratios), 3),
        "prefix_hit_rate": round(statistics.median(hits), 3),
    }


async def bench_sync() -> float:
    """Compare weight updates of a model of SmolLM2-135M's shape with plain copies."""
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    engine = await open_vllm(model)
    weights = LiveWeights(model)
    tensors = [tensor for _, tensor in ModuleWeights(module=model).named_tensors()]
    copies = [torch.empty_like(tensor) for tensor in tensors]
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    syncs, plain = [], []
    for number in range(SYNCS):
        began = time.perf_counter()
        for copy, tensor in zip(copies, tensors, strict=True):
            copy.copy_(tensor)
        plain.append(time.perf_counter() - began)
        began = time.perf_counter()
        weights.version = number
        await engine.update_weights(weights)
        syncs.append(time.perf_counter() - began)
    await engine.close()
    sync_s, copy_s = statistics.median(syncs[1:]), statistics.median(plain[1:])
    print(f"{num_bytes / 1e6:.0f} MB: update {sync_s:.2f} s, plain copy {copy_s:.3f} s")
    return round(sync_s / copy_s, 1)


class Clock(Reporter):
    """Notes when each training step was recorded."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def step_finished(self, step: int, metrics: Any) -> None:
        """Note the time."""
        self.at.append(time.perf_counter())


def train(folder: Path, name: str, *words: str) -> tuple[Trainer, Clock]:
    """Run the calculator task with a code interpreter that takes a second longer."""
    clock = Clock()
    config = load_config(
        ROOT / "tasks" / "calculator" / "train.yaml",
        ["engine.type=vllm", f"output_dir={folder}", f"name={name}", "eval.samples=0",
         "checkpoint.every=0", *words],
    )  # fmt: skip
    slow = {"class_name": f"{BENCH / 'slow_interpreter.py'}:SlowInterpreter"}
    tools = [tool | slow for tool in load_tools_yaml()]
    config = config.model_copy(update={"tools": tools})
    trainer = Trainer(config, reporter=clock)
    trainer.train(sft_only="sft.steps=0" not in words)
    steps = [b - a for a, b in zip(clock.at, clock.at[1:], strict=False)][WARM_UP - 1 :]
    print(f"{name}: {statistics.median(steps):.2f} s a step")
    return trainer, clock


def load_tools_yaml() -> list[dict[str, Any]]:
    """Return the shipped registration of the code interpreter."""
    import yaml

    path = ROOT / "tools" / "code_interpreter.yaml"
    tools: list[dict[str, Any]] = yaml.safe_load(path.read_text())["tools"]
    return tools


def bench_overlap(folder: Path, prompts: int) -> float:
    """Compare wall time of the same steps with and without overlap."""
    warm, _ = train(folder, "sft", f"sft.steps={SFT_STEPS}")
    policy = warm.folder.checkpoints / (warm.folder.path / "latest").read_text().strip()
    walls: dict[int, list[float]] = {0: [], 1: []}
    for number in range(REPEATS):
        for staleness in (0, 1):
            run, clock = train(
                folder, f"staleness{staleness}-{number}", "sft.steps=0", "model.builder=null",
                f"model.path={policy}", f"train.steps={STEPS}",
                f"train.prompts_per_step={prompts}", "train.epochs_per_step=2",
                f"rollout.max_staleness={staleness}", "engine.on_update=continue",
            )  # fmt: skip
            walls[staleness].append(clock.at[-1] - clock.at[WARM_UP - 1])
            if staleness == 0:
                lines = (run.folder.path / "metrics.jsonl").read_text().splitlines()
                rows = [json.loads(line) for line in lines]
                shares = {
                    key: statistics.median(row[key] for row in rows if key in row)
                    for key in sorted({key for row in rows for key in row if "timing_s/" in key})
                }
                print(f"without overlap: {shares}")
    ratios = [b / a for a, b in zip(walls[0], walls[1], strict=True)]
    return round(statistics.median(ratios), 3)


def main() -> None:
    """Run the benches and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["rollout", "sync", "overlap"])
    parser.add_argument("--prompts", type=int, default=16, help="prompts a step, for overlap")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        if options.only in (None, "rollout"):
            figures |= asyncio.run(bench_rollout(Path(folder) / "policy"))
        if options.only in (None, "sync"):
            figures["sync_vs_memcpy"] = asyncio.run(bench_sync())
        if options.only in (None, "overlap"):
            figures["overlap_vs_sync"] = bench_overlap(Path(folder), options.prompts)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
