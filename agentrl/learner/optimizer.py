"""AdamW over float32 master weights, with a schedule and gradient clipping.

A bfloat16 model cannot hold the small steps of fine-tuning (an update below 1/256 of a weight is
rounded away), so such parameters are optimised as float32 copies and written back. That costs 4
bytes a parameter beside AdamW's 8; float32 models are optimised in place and pay nothing.
"""

import math
from typing import Any

import torch

from agentrl.config.train import OptimizerConfig
from agentrl.errors import RunError


class Optimizer:
    """One optimizer over all trainable parameters of a model.

    Args:
        model: whose parameters with `requires_grad` are trained.
        config: AdamW's settings and the schedule.
        total_steps: the length of the schedule in optimizer steps.
    """

    def __init__(self, model: torch.nn.Module, config: OptimizerConfig, total_steps: int) -> None:
        self._config = config
        self._total_steps = total_steps
        trained = [p for p in model.parameters() if p.requires_grad]
        self._masters = [
            p if p.dtype is torch.float32 else p.detach().float().clone() for p in trained
        ]
        pairs = zip(trained, self._masters, strict=True)
        self._copied = [(p, master) for p, master in pairs if p is not master]
        self._adam = torch.optim.AdamW(
            self._masters,
            lr=config.learning_rate,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
        )
        self._num_steps = 0

    @property
    def learning_rate(self) -> float:
        """The rate that the next step uses."""
        return self._config.learning_rate * schedule_factor(
            self._num_steps, self._config, self._total_steps
        )

    def accumulate(self) -> None:
        """Add the gradients of a backward pass, in float32."""
        for parameter, master in self._copied:
            if parameter.grad is not None:
                gradient = parameter.grad.float()
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> float:
        """Clip, step, clear the gradients.

        Returns:
            The norm of the gradient before clipping.

        Raises:
            RunError: the gradient is not finite; the weights are unchanged.
        """
        norm = torch.nn.utils.clip_grad_norm_(self._masters, self._config.max_grad_norm).item()
        if not math.isfinite(norm):
            self._adam.zero_grad(set_to_none=True)
            raise RunError(
                f"optimizer step {self._num_steps + 1}: the gradient norm is {norm}; the weights "
                f"are unchanged. Lower optimizer.learning_rate, or use model.dtype=float32"
            )
        for group in self._adam.param_groups:
            group["lr"] = self.learning_rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        for parameter, master in self._copied:
            parameter.copy_(master)
        self._num_steps += 1
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Return everything that resuming needs, master weights included."""
        masters = [master for _, master in self._copied]
        return {"adam": self._adam.state_dict(), "steps": self._num_steps, "masters": masters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._adam.load_state_dict(state["adam"])
        self._num_steps = state["steps"]
        with torch.no_grad():
            for (_, master), saved in zip(self._copied, state["masters"], strict=True):
                master.copy_(saved)


def schedule_factor(step: int, config: OptimizerConfig, total_steps: int) -> float:
    """Return the learning rate of optimizer step `step` (from 0) as a share of the peak."""
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1)
    done = min(done, 1.0)
    shape = 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return config.min_ratio + (1 - config.min_ratio) * shape
