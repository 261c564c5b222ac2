from pathlib import Path
from typing import Any

import pytest

from agentrl.contracts.plugin import load_plugin
from agentrl.rollout.render import Renderer

TINY_POLICY = Path(__file__).parent / "tiny_policy.py"


@pytest.fixture(scope="session")
def tiny_policy() -> str:
    """The plugin reference of a builder of a tiny random policy."""
    return f"{TINY_POLICY}:build"


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A byte-level tokenizer whose template shows tools and calls."""
    return load_plugin(f"{TINY_POLICY}:build_tokenizer")()


@pytest.fixture(scope="session")
def renderer(tokenizer: Any) -> Renderer:
    """The renderer of that tokenizer."""
    return Renderer(tokenizer)
