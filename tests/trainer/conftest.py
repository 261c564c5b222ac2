import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentrl.config.load import validate
from agentrl.config.run import RunConfig

MakeConfig = Callable[..., RunConfig]


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
            "task": {
                "train": str(data),
                "test": str(data),
                "config": {"reward": f"{tmp_path / 'rewards.py'}:short_is_good"},
            },
            "rollout": {"group_size": 4, "max_response_tokens": 12},
            "train": {"steps": 3, "prompts_per_step": 2},
            "optimiser": {"learning_rate": 1e-3},
            "eval": {"samples": 0},
            **sections,
        }
        return validate(RunConfig, tree, source="test")

    return make
