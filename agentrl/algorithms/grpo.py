"""GRPO: group-relative advantages, a clipped ratio, an optional KL penalty.

Source: DeepSeekMath (arXiv:2402.03300). With `scale_by_std: false` and `sequence_mean` or
`token_mean` it covers Dr. GRPO and DAPO's loss.
"""

import torch

from agentrl.algorithms.advantage import group_relative, has_signal
from agentrl.algorithms.base import LossInputs, Metrics, MinibatchTotals, RLAlgorithm
from agentrl.algorithms.kl import kl_estimate
from agentrl.algorithms.loss import aggregate, clipped_loss
from agentrl.config.train import GRPOConfig
from agentrl.contracts.trajectory import Group


class GRPO(RLAlgorithm):
    """Group-relative policy optimisation."""

    def __init__(self, config: GRPOConfig) -> None:
        self._config = config
        self.needs_reference = config.kl.coefficient > 0

    def compute_advantages(self, group: Group) -> list[float | None]:
        """Compare each kept trajectory with its kept siblings; dropped ones get None."""
        rewards = [trajectory.reward for trajectory in group.kept]
        if self._config.skip_zero_variance and not has_signal(rewards):
            return [None] * len(group.trajectories)
        advantages = iter(group_relative(rewards, scale_by_std=self._config.scale_by_std))
        return [None if t.dropped else next(advantages) for t in group.trajectories]

    def compute_loss(
        self, logprobs_BT: torch.Tensor, inputs: LossInputs, totals: MinibatchTotals
    ) -> tuple[torch.Tensor, Metrics]:
        """Return the share of the loss; metrics are token means over the minibatch."""
        config, mask_BT = self._config, inputs.response_mask_BT
        # Chosen before anything is computed from them: a zero gradient times inf would be NaN.
        kept_BT = mask_BT > 0
        logprobs_BT = torch.where(kept_BT, logprobs_BT, 0.0)
        log_ratio_BT = logprobs_BT - torch.where(kept_BT, inputs.old_logprobs_BT, 0.0)
        pg_BT = clipped_loss(
            log_ratio_BT,
            inputs.advantages_BT,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
        )
        if inputs.importance_weights_BT is not None:
            pg_BT = pg_BT * inputs.importance_weights_BT
        loss = aggregate(pg_BT, mask_BT, totals, config.aggregation)
        metrics = {"actor/pg_loss": loss.item()}
        if self.needs_reference and inputs.ref_logprobs_BT is not None:
            reference_BT = torch.where(kept_BT, inputs.ref_logprobs_BT, 0.0)
            kl_BT = kl_estimate(logprobs_BT, reference_BT, config.kl.estimator)
            kl = aggregate(kl_BT, mask_BT, totals, config.aggregation)
            loss = loss + config.kl.coefficient * kl
            metrics["actor/kl_loss"] = kl.item()
        with torch.no_grad():
            ratio_BT = log_ratio_BT.exp()
            clipped_BT = (ratio_BT < 1 - config.clip_low) | (ratio_BT > 1 + config.clip_high)
            for name, values_BT in (("ppo_kl", -log_ratio_BT), ("clip_frac", clipped_BT.float())):
                share = aggregate(values_BT, mask_BT, totals, "token_mean")
                metrics[f"actor/{name}"] = share.item()
        return loss, metrics
