"""Dr. GRPO: GRPO without its two biases.

Source: Liu et al. (arXiv:2503.20783). Dividing by a response's length favors long wrong answers,
dividing by the group's deviation favors questions that are nearly always or never answered. So
advantages are not scaled, and token losses are summed and divided by a constant. A mean over the
tokens of a batch (`token_mean`) is not that: it depends on how long the other answers happen to be.
"""

from pydantic import PositiveInt
from torch import Tensor
from typing_extensions import override

from agentrl.algorithms.base import Batch, MinibatchTotals
from agentrl.algorithms.grpo import Clipped, ClippedConfig
from agentrl.algorithms.loss import trained


class DrGRPOConfig(ClippedConfig):
    """GRPO done right."""

    type: str = "dr_grpo"
    normalizer_tokens: PositiveInt = 1024
    """What a sequence's summed loss is divided by, the same for every batch of a run. The paper
    and TRL take the most tokens that a response may have (`rollout.max_response_tokens`)."""


class DrGRPO(Clipped):
    """GRPO with unscaled advantages and a constant normaliser."""

    Options = DrGRPOConfig
    options: DrGRPOConfig

    @override
    def average(self, values_RT: Tensor, batch: Batch, totals: MinibatchTotals) -> Tensor:
        constant = totals.num_sequences * self.options.normalizer_tokens
        return trained(values_RT, batch).sum() / constant
