"""GRPO from Python: the quick start, shortened to what fits into a minute.

python examples/grpo_from_python.py
"""

import sys
from collections.abc import Mapping

from agentrl import Trainer
from agentrl.runs.reporter import Reporter


class Lines(Reporter):
    """Prints the reward of every step."""

    def step_finished(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print one line."""
        if "critic/rewards/mean" in metrics:
            print(f"step {step}: reward {metrics['critic/rewards/mean']:.3f}")


if __name__ == "__main__":
    trainer = Trainer.from_config(
        "tasks/calculator/train.yaml",
        ["name=from-python", "sft.steps=250", "train.steps=5", "eval.samples=50", *sys.argv[1:]],
        reporter=Lines(),
    )
    result = trainer.train()
    print(f"success {result.success_before:.2f} -> {result.success_after:.2f}: {result.run_dir}")
