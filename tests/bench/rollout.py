"""Rollout speed: the engine against `model.generate`, free-running episodes against lock step.

    python tests/bench/rollout.py

Everything is measured in one run, the sides taking turns, and medians are compared. The last
line is one JSON object.
"""

import asyncio
import json
import os
import random
import statistics
import time

# As the `agentrl` program sets it, for both sides; read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from dialogues import bench_scheduling
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from agentrl.contracts.engine import Sampling
from agentrl.engines.transformers import TransformersEngine

THREADS = 2
REQUESTS = 64
PROMPT_TOKENS = 64
NEW_TOKENS = 128
ROUNDS = 7


def build_model() -> PreTrainedModel:
    """Make a Llama of three million random parameters that never ends by itself."""
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


def time_generate(model: PreTrainedModel, prompts: list[list[int]]) -> float:
    """Return the tokens/s of one `generate` call on the whole batch."""
    ids = torch.tensor(prompts)
    start = time.perf_counter()
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW_TOKENS,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        pad_token_id=0,
    )
    elapsed_s = time.perf_counter() - start
    assert output.shape == (REQUESTS, PROMPT_TOKENS + NEW_TOKENS)
    return REQUESTS * NEW_TOKENS / elapsed_s


def time_engine(model: PreTrainedModel, prompts: list[list[int]]) -> float:
    """Return the tokens/s of concurrent requests, log-probabilities included."""

    async def run() -> float:
        engine = TransformersEngine(model, max_batch=REQUESTS)
        start = time.perf_counter()
        done = await asyncio.gather(
            *(
                engine.generate(prompt, Sampling(max_tokens=NEW_TOKENS, seed=i), session=str(i))
                for i, prompt in enumerate(prompts)
            )
        )
        elapsed_s = time.perf_counter() - start
        await engine.close()
        assert all(len(completion.token_ids) == NEW_TOKENS for completion in done)
        return REQUESTS * NEW_TOKENS / elapsed_s

    return asyncio.run(run())


def bench_engine() -> float:
    """Compare 64 concurrent equal requests with one `generate` of the same batch."""
    model = build_model()
    rng = random.Random(0)
    prompts = [[rng.randrange(1024) for _ in range(PROMPT_TOKENS)] for _ in range(REQUESTS)]
    time_generate(model, prompts)
    time_engine(model, prompts)
    generate, engine = [], []
    for _ in range(ROUNDS):
        generate.append(time_generate(model, prompts))
        engine.append(time_engine(model, prompts))
    medians = statistics.median(engine), statistics.median(generate)
    print(f"tokens/s at {REQUESTS} requests: engine {medians[0]:.0f}, generate {medians[1]:.0f}")
    return medians[0] / medians[1]


def main() -> None:
    """Run the benches and print the figures."""
    torch.set_num_threads(THREADS)
    figures = {
        "engine_vs_generate": round(bench_engine(), 3),
        "async_vs_lockstep": round(bench_scheduling(), 3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
