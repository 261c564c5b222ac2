"""Two-turn tool dialogues through the product's rollout, against vLLM's offline `generate`.

Every dialogue writes a turn, waits 0.2 s for its tool, and writes another. Offline generation gets
the same prompts (those of second turns with the whole dialogue before them) and writes the same
lengths, without tools, all at once.
"""

import asyncio
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from dialogues import NoServices, NoTask, Nothing
from transformers import LlamaConfig, LlamaForCausalLM

from agentrl.config.engine import VllmEngineConfig
from agentrl.config.rollout import RolloutConfig
from agentrl.contracts.call import ParsedTurn, Schemas
from agentrl.contracts.engine import Completion, Sampling
from agentrl.contracts.sample import Sample
from agentrl.contracts.tool import BaseTool, ToolCall, ToolResponse
from agentrl.contracts.trajectory import Trajectory
from agentrl.engines.vllm.engine import VllmEngine
from agentrl.engines.vllm.launch import CPU_BLOCK_TOKENS, ModelSpec
from agentrl.engines.weights import LiveWeights
from agentrl.plugins.reference import load_plugin
from agentrl.plugins.schema import infer_schema
from agentrl.rollout.group import Rollout
from agentrl.templates.render import Renderer

DIALOGUES, AT_ONCE = 128, 32
TURN_TOKENS = 64
TOOL_S = 0.2
CACHE_GB = 1.0
LONGEST = 1024
LOG = Path(tempfile.gettempdir()) / "agentrl-bench-vllm.log"


class Wait(BaseTool):
    """Takes 0.2 s."""

    async def execute(
        self, instance_id: str, parameters: Nothing, **kwargs: Any
    ) -> tuple[ToolResponse, float, dict[str, Any]]:
        """Wait."""
        await asyncio.sleep(TOOL_S)
        return ToolResponse(text="done " * 4), 0.0, {}


class CallsOnce:
    """Takes the first turn, whatever it says, for a call of the tool."""

    name = "calls_once"

    def parse(
        self, text: str, *, id_prefix: str = "call", schemas: Schemas | None = None
    ) -> ParsedTurn:
        """Return a call in the first turn and none later."""
        call = ToolCall(id=f"{id_prefix}_0", name="wait", arguments={})
        return ParsedTurn(content=text, calls=(call,) if id_prefix == "call_0" else ())


class FullTurns:
    """Makes every turn as long as it may be, and says that the policy ended it."""

    def __init__(self, engine: VllmEngine) -> None:
        self._engine = engine

    async def generate(
        self, prompt_ids: list[int], sampling: Sampling, *, session: str
    ) -> Completion:
        """Complete without stop tokens."""
        sampling = replace(sampling, stop_token_ids=())
        done = await self._engine.generate(prompt_ids, sampling, session=session)
        return replace(done, finish_reason="stop")


def build_model(vocabulary: int) -> LlamaForCausalLM:
    """Make a Llama of three million random parameters."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


async def open_vllm(model: Any, **options: Any) -> VllmEngine:
    """Start the product's engine with a model's weights."""
    model.config.architectures = [type(model).__name__]
    dtype = str(model.dtype).removeprefix("torch.")
    spec = ModelSpec(config=model.config, dtype=dtype, device="cpu", max_tokens=LONGEST)
    config = VllmEngineConfig(type="vllm", max_batch=AT_ONCE, kv_cache_gb=CACHE_GB, **options)
    engine = VllmEngine(spec, config, log_file=LOG)
    await engine.start()
    await engine.update_weights(LiveWeights(model))
    return engine


async def roll_out(
    engine: VllmEngine, renderer: Renderer, round_number: int
) -> tuple[float, list[Trajectory]]:
    """Return the policy tokens/s of all dialogues, and the dialogues."""
    rollout = Rollout(
        config=RolloutConfig(
            max_assistant_turns=2,
            max_response_tokens=512,
            max_turn_tokens=TURN_TOKENS,
            max_concurrent_episodes=DIALOGUES,
        ),
        engine=FullTurns(engine),  # type: ignore[arg-type]
        renderer=renderer,
        tool_format=CallsOnce(),
        tools={"wait": Wait({}, infer_schema(Wait, where="bench"))},
        interactions={},
        task=NoTask({}, train=None, test=None, seed=0),
        services=NoServices(),
    )
    texts = [f"round {round_number}, dialogue {i}: " + "tell me " * 8 for i in range(DIALOGUES)]
    samples = [
        Sample(prompt=[{"role": "user", "content": text}], index=i) for i, text in enumerate(texts)
    ]
    async with rollout:
        began = time.perf_counter()
        groups = rollout.run_groups(samples, name=f"r{round_number}", size=1, seed=round_number)
        trajectories = [group.trajectories[0] async for _, group in groups]
        elapsed_s = time.perf_counter() - began
    written = [len(turn.token_ids) for t in trajectories for turn in t.policy_turns]
    assert written == [TURN_TOKENS] * 2 * DIALOGUES, sorted(set(written))
    return sum(written) / elapsed_s, trajectories


def offline_prompts(trajectories: list[Trajectory]) -> list[list[int]]:
    """Return the prompts of all first turns, then those of all second turns."""
    first = [list(t.prompt_ids) for t in trajectories]
    second = [
        [*t.prompt_ids, *(token for turn in t.turns[:2] for token in turn.token_ids)]
        for t in trajectories
    ]
    return first + second


def open_offline(folder: Path) -> Any:
    """Start vLLM's own offline engine on a saved model, with the same settings."""
    from vllm import LLM

    return LLM(
        model=str(folder),
        skip_tokenizer_init=True,
        dtype="float32",
        enforce_eager=True,
        max_num_seqs=AT_ONCE,
        max_model_len=LONGEST,
        kv_cache_memory_bytes=int(CACHE_GB * 2**30),
        block_size=CPU_BLOCK_TOKENS,
        generation_config="vllm",
        logprobs_mode="processed_logprobs",
        enable_prefix_caching=True,
        disable_log_stats=True,
        seed=0,
    )


def generate_offline(llm: Any, prompts: list[list[int]]) -> float:
    """Return the tokens/s of one `generate` call; the cache starts empty, as after an update."""
    from vllm import SamplingParams

    parameters = SamplingParams(
        max_tokens=TURN_TOKENS, temperature=1.0, ignore_eos=True, logprobs=0, detokenize=False
    )
    llm.reset_prefix_cache()
    began = time.perf_counter()
    outputs = llm.generate(
        [{"prompt_token_ids": prompt} for prompt in prompts], parameters, use_tqdm=False
    )
    elapsed_s = time.perf_counter() - began
    assert all(len(output.outputs[0].token_ids) == TURN_TOKENS for output in outputs)
    return len(prompts) * TURN_TOKENS / elapsed_s


def tiny_tokenizer(root: Path) -> Any:
    """Return the tests' byte-level tokenizer."""
    return load_plugin(f"{root / 'tests' / 'tiny_policy.py'}:build_tokenizer")()
