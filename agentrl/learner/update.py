"""One policy update: groups in, a better policy and metrics out.

    groups -> advantages -> sequences -> epochs x minibatches -> micro-batches -> loss -> step

`old_logprobs` are the engine's (with a rollout correction: the trainer's, computed before the
first step), fixed over all epochs. A gradient is accumulated over a minibatch's micro-batches and
normalised by the minibatch's own totals, so its value does not depend on how the minibatch was cut.
"""

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from agentrl.algorithms.base import LossInputs, MinibatchTotals, RLAlgorithm
from agentrl.config.rollout import SamplingConfig
from agentrl.config.train import TrainConfig
from agentrl.contracts.trajectory import Group
from agentrl.errors import ConfigError, RunError
from agentrl.learner.batch import MicroBatch, TrainSequence, collate, micro_batches
from agentrl.learner.correction import (
    LARGE_GAP,
    corrected,
    gap_metrics,
    recommend_correction,
    weight_metrics,
)
from agentrl.learner.models import Policy
from agentrl.learner.optimizer import Optimizer
from agentrl.learner.scores import token_logprobs

Metrics = dict[str, float]


class Updater:
    """Applies one algorithm to one policy.

    `reference` is the frozen model of the KL penalty, None without one.
    """

    def __init__(
        self,
        policy: Policy,
        algorithm: RLAlgorithm,
        optimizer: Optimizer,
        config: TrainConfig,
        *,
        temperature: float,
        seed: int,
        reference: Any = None,
    ) -> None:
        self._policy = policy
        self._algorithm = algorithm
        self._optimizer = optimizer
        self._config = config
        self._temperature = temperature
        self._seed = seed
        self._reference = reference

    def update(self, step: int, groups: Sequence[Group]) -> Metrics:
        """Learn from a step's groups.

        Raises:
            RunError: the loss or gradient is not finite.
        """
        sequences = self._sequences(groups)
        metrics: Metrics = {"actor/lr": self._optimizer.learning_rate}
        metrics["train/sequences"] = float(len(sequences))
        advantages = [s.advantage for s in sequences]
        metrics["critic/advantages/mean"] = sum(advantages) / max(len(advantages), 1)
        metrics["critic/advantages/max"] = max(advantages, default=0.0)
        metrics["critic/advantages/min"] = min(advantages, default=0.0)
        if not sequences:
            return metrics
        if self._reference is not None:
            rows = self._logprobs(self._reference, sequences)
            pairs = zip(sequences, rows, strict=True)
            sequences = [replace(s, ref_logprobs=tuple(values)) for s, values in pairs]
        if self._config.correction.type != "none":
            sequences, measured = self._corrected(sequences)
            metrics |= measured
        self._policy.model.train()
        totals: defaultdict[str, float] = defaultdict(float)
        minibatches = list(self._minibatches(step, sequences))
        for index, minibatch in enumerate(minibatches):
            for name, value in self._minibatch(minibatch, first=index == 0).items():
                totals[name] += value
        self._policy.model.eval()
        first_only = {name: v for name, v in totals.items() if name.startswith("rollout/")}
        means = {name: value / len(minibatches) for name, value in totals.items()}
        if (gap := first_only.get("rollout/logprob_diff/mean", 0.0)) > LARGE_GAP:
            recommend_correction(gap)
        return metrics | means | first_only

    def _sequences(self, groups: Sequence[Group]) -> list[TrainSequence]:
        sequences = []
        for group in groups:
            advantages = self._algorithm.compute_advantages(group)
            for trajectory, advantage in zip(group.trajectories, advantages, strict=True):
                mask = tuple(trajectory.response_mask)
                if advantage is None or not any(mask):
                    continue
                sequences.append(
                    TrainSequence(
                        token_ids=tuple(trajectory.token_ids),
                        mask=mask,
                        old_logprobs=tuple(trajectory.logprobs),
                        advantage=advantage,
                    )
                )
        return sequences

    def _minibatches(
        self, step: int, sequences: list[TrainSequence]
    ) -> Iterator[list[TrainSequence]]:
        config = self._config
        size = math.ceil(len(sequences) / config.minibatches_per_epoch)
        for epoch in range(config.epochs_per_step):
            order = list(sequences)
            random.Random(f"{self._seed}/{step}/{epoch}").shuffle(order)
            for start in range(0, len(order), size):
                yield order[start : start + size]

    def _minibatch(self, sequences: list[TrainSequence], *, first: bool) -> Metrics:
        """Accumulate one minibatch's gradient and step."""
        totals = MinibatchTotals(
            num_tokens=sum(s.num_trained for s in sequences), num_sequences=len(sequences)
        )
        metrics: defaultdict[str, float] = defaultdict(float)
        for rows in micro_batches(sequences, max_tokens=self._config.max_tokens_per_microbatch):
            batch = collate(rows, self._policy.device)
            logprobs_BT, entropy_BT = token_logprobs(
                self._policy.model, batch, temperature=self._temperature, entropy=True
            )
            assert entropy_BT is not None
            loss, shares = self._algorithm.compute_loss(logprobs_BT, _inputs(batch), totals)
            if not torch.isfinite(loss):
                raise RunError(
                    f"the loss is {loss.item()}; the weights are those before this minibatch. "
                    f"Lower optimizer.learning_rate, or use model.dtype=float32"
                )
            torch.autograd.backward(loss)
            self._optimizer.accumulate()
            shares["actor/entropy"] = _masked(entropy_BT, batch).sum().item() / totals.num_tokens
            for name, value in shares.items():
                metrics[name] += value
            if first and batch.weights_BT is None:
                # Before the first step the trainer's policy is the engine's: any gap is numerics,
                # or the age of the rollouts.
                gap_BT = _masked(logprobs_BT.detach() - batch.old_logprobs_BT, batch)
                mean = gap_BT.abs().sum().item() / totals.num_tokens
                metrics["rollout/logprob_diff/mean"] += mean
                worst = max(metrics["rollout/logprob_diff/max"], gap_BT.abs().max().item())
                metrics["rollout/logprob_diff/max"] = worst
                kl = (gap_BT.clamp(max=50.0).expm1() - gap_BT).sum().item()
                metrics["rollout/kl"] += kl / totals.num_tokens
        metrics["actor/grad_norm"] = self._optimizer.step()
        return metrics

    def _corrected(self, sequences: list[TrainSequence]) -> tuple[list[TrainSequence], Metrics]:
        """Replace the engine's log-probabilities by the trainer's, and weigh the tokens."""
        rows = self._logprobs(self._policy.model, sequences)
        metrics = gap_metrics(sequences, rows)
        sequences = list(corrected(sequences, iter(rows), self._config.correction))
        return sequences, metrics | weight_metrics(sequences)

    @torch.no_grad()
    def _logprobs(self, model: Any, sequences: list[TrainSequence]) -> list[list[float]]:
        """Return a model's log-probabilities of every sequence, in the sequences' order."""
        found: dict[int, list[float]] = {}
        limit = self._config.max_tokens_per_microbatch
        for rows in micro_batches(sequences, max_tokens=limit):
            batch = collate(rows, self._policy.device)
            logprobs_BT, _ = token_logprobs(model, batch, temperature=self._temperature)
            for row, values in zip(rows, logprobs_BT.tolist(), strict=True):
                found[id(row)] = values[: len(row.token_ids)]
        return [found[id(sequence)] for sequence in sequences]


def check_sampling(sampling: SamplingConfig) -> None:
    """Refuse to train on samples of a distribution that the update cannot score.

    Raises:
        ConfigError: `temperature` is 0, or `top_p` or `top_k` cut the distribution.
    """
    if sampling.temperature == 0 or sampling.top_p < 1 or sampling.top_k > 0:
        raise ConfigError(
            f"rollout.sampling: training needs temperature above 0, top_p=1 and top_k=0, because "
            f"the update's log-probabilities are of the whole distribution; got {sampling}"
        )


def _inputs(batch: MicroBatch) -> LossInputs:
    return LossInputs(
        response_mask_BT=batch.mask_BT,
        old_logprobs_BT=batch.old_logprobs_BT,
        advantages_BT=batch.advantages_BT,
        ref_logprobs_BT=batch.ref_logprobs_BT,
        importance_weights_BT=batch.weights_BT,
    )


def _masked(values_BT: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
    return torch.where(batch.mask_BT > 0, values_BT, 0.0)
