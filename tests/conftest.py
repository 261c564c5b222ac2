import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentrl.config.load import validate
from agentrl.config.run import RunConfig
from agentrl.plugins.reference import load_plugin
from agentrl.templates.render import Renderer

MakeConfig = Callable[..., RunConfig]
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


@pytest.fixture
def make_config(tmp_path: Path, tiny_policy: str) -> MakeConfig:
    """Make a configuration of a run that takes a second; keyword arguments replace sections."""
    rows = [{"prompt": f"say {i}", "answer": str(i)} for i in range(6)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "rewards.py").write_text(
        "def short_is_good(trajectory, sample):\n"
        "    return 1.0 if len(trajectory.answer) % 2 else 0.0\n"
    )

    def make(**sections: Any) -> RunConfig:
        tree = {
            "name": "tiny",
            "output_dir": str(tmp_path / "runs"),
            "model": {"builder": tiny_policy, "dtype": "float32", "device": "cpu"},
            "task": {"train": str(data), "test": str(data)},
            "rewards": [{"type": f"{tmp_path / 'rewards.py'}:short_is_good"}],
            "rollout": {"group_size": 4, "max_response_tokens": 12},
            "train": {"steps": 3, "prompts_per_step": 2},
            "optimizer": {"learning_rate": 1e-3},
            "eval": {"samples": 0},
            **sections,
        }
        return validate(RunConfig, tree, source="test")

    return make
