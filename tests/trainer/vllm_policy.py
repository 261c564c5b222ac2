"""The tests' tiny policy, with attention heads of a size that vLLM takes."""

from pathlib import Path
from typing import Any

from vllm_support import tiny_model

from agentrl.plugins.reference import load_plugin

TINY_POLICY = Path(__file__).parents[1] / "tiny_policy.py"


def build(seed: int) -> tuple[Any, Any]:
    return tiny_model(seed), load_plugin(f"{TINY_POLICY}:build_tokenizer")()
