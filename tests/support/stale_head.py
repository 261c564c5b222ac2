"""A vLLM worker without the repair of a tied output head: what the parity probe is there for."""

import torch

from agentrl.engines.vllm.worker import WeightWorker


class StaleHeadWorker(WeightWorker):
    def repack_shared_weights(self, model: torch.nn.Module) -> None:
        """Leave the head as vLLM's own reloading leaves it."""
