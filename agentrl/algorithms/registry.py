"""Which class implements which `algorithm.type`."""

from agentrl.algorithms.base import RLAlgorithm
from agentrl.algorithms.grpo import GRPO
from agentrl.config.train import GRPOConfig

ALGORITHMS: dict[str, type[GRPO]] = {"grpo": GRPO}


def build_algorithm(config: GRPOConfig) -> RLAlgorithm:
    """Return the algorithm that the configuration names."""
    return ALGORITHMS[config.type](config)
