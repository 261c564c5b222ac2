"""One update of the policy: groups in, a better policy and metrics out.

    credit: before_train_step -> credit
    update: scores of other roles -> correction
    -> epochs x minibatches -> take_step -> after_train_step -> get_metrics

The old log-probabilities are the engine's (with a correction: the trainer's, computed before the
first step), fixed over all epochs. Everything per token is an array or a tensor; samples are known
by their index.
"""

import random
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from agentrl.algorithms.base import Batch, Loss, MinibatchTotals, RLAlgorithm, TokenScores
from agentrl.algorithms.samples import TrainSample
from agentrl.config.rollout import SamplingConfig
from agentrl.config.train import TrainConfig
from agentrl.contracts.metric import Metric, reduce_metrics
from agentrl.contracts.trajectory import Group
from agentrl.errors import ConfigError
from agentrl.learner.attention import attending
from agentrl.learner.batch import Streams, micro_batches
from agentrl.learner.correction import (
    corrected,
    gap_metrics,
    recommend_correction,
    weight_metrics,
)
from agentrl.learner.models import Model
from agentrl.learner.optimizer import Optimizer
from agentrl.learner.scores import score
from agentrl.learner.step import take_step

Metrics = dict[str, Metric]


class Learner:
    """Applies one algorithm to one policy.

    `temperature` is that of the samples; `seed` decides their order; `reference` is the frozen
    model of an algorithm that needs one.

    Raises:
        ConfigError: the algorithm needs a role that is not there.
    """

    def __init__(
        self,
        model: Model,
        algorithm: RLAlgorithm,
        optimizer: Optimizer,
        config: TrainConfig,
        *,
        temperature: float,
        seed: int,
        reference: Any = None,
    ) -> None:
        self._model, self._algorithm, self._optimizer = model, algorithm, optimizer
        self._config, self._temperature, self._seed = config, temperature, seed
        self._reference = reference
        if missing := algorithm.needs - ({"reference"} if reference is not None else set()):
            raise ConfigError(
                f"algorithm {type(algorithm).__name__} needs the roles {sorted(missing)}, which "
                f"this run does not have; the learner can give a `reference`, and neither "
                f"`critic` nor `teacher` yet"
            )

    def credit(self, step: int, groups: Sequence[Group]) -> list[TrainSample]:
        """Let the algorithm say what each sampled token of a step is worth."""
        self._algorithm.before_train_step(step, groups)
        return list(self._algorithm.credit(groups))

    def update(self, step: int, samples: Sequence[TrainSample]) -> dict[str, float]:
        """Learn from a step's samples; those without a token to train are left out.

        Raises:
            RunError: the loss or gradient is not finite.
        """
        samples = [sample for sample in samples if sample.loss_mask.any()]
        metrics = {"actor/lr": self._optimizer.learning_rate}
        metrics["train/sequences"] = float(len(samples))
        if samples:
            metrics |= reduce_metrics(self._update(step, Streams.of(samples)))
            if self._config.correction.type == "none":
                recommend_correction(metrics["rollout/logprob_diff/mean"])
        self._algorithm.after_train_step(step, metrics)
        return metrics | reduce_metrics([self._algorithm.get_metrics()])

    def _update(self, step: int, streams: Streams) -> Iterator[Metrics]:
        """Take a step's optimizer steps; yield the metrics of their parts."""
        yield _advantage_metrics(streams)
        if self._reference is not None:
            scored_N = self._logprobs(self._reference, streams)
            streams = streams.with_optional(ref_logprobs=scored_N)
        correction = self._config.correction
        if measured := correction.type != "none":
            engine_N = streams.old_logprobs_N
            streams = corrected(streams, self._logprobs(self._model.model, streams), correction)
            gap_N = (streams.old_logprobs_N - engine_N)[streams.loss_mask_N > 0]
            yield gap_metrics(torch.from_numpy(gap_N)) | weight_metrics(streams)
        for chosen in self._minibatches(step, streams):
            # Before the first step the trainer's policy is the engine's: any gap is numerics, or
            # the age of the rollouts.
            yield from self._minibatch(streams, chosen, measure=not measured)
            measured = True

    def _minibatches(self, step: int, streams: Streams) -> Iterator[np.ndarray]:
        """Deal the sequences out anew in each epoch, as evenly as can be; yield their samples."""
        count = streams.num_sequences
        size = min(count, self._config.minibatches_per_epoch)
        for epoch in range(self._config.epochs_per_step):
            order = list(range(count))
            random.Random(f"{self._seed}/{step}/{epoch}").shuffle(order)
            for part in np.array_split(np.array(order), size):
                yield streams.of_sequences(part)

    def _minibatch(self, streams: Streams, chosen: np.ndarray, *, measure: bool) -> list[Metrics]:
        totals = MinibatchTotals(
            num_tokens=int(streams.num_trained_S[chosen].sum()),
            num_sequences=len(np.unique(streams.sequences_S[chosen])),
        )
        parts = take_step(
            self._model,
            self._optimizer,
            (batch for _, batch in self._batches(streams, chosen)),
            partial(self._loss, totals=totals, measure=measure),
            temperature=self._temperature,
        )
        return [*parts[:-1], {f"actor/{name}": metric for name, metric in parts[-1].items()}]

    def _loss(
        self, scores: TokenScores, batch: Batch, *, totals: MinibatchTotals, measure: bool
    ) -> Loss:
        """Ask the algorithm, and add what is reported for every one."""
        loss = self._algorithm.compute_loss(scores, batch, totals)
        entropy = scores.entropy_RT.sum().item() / batch.num_trained
        metrics = {"actor/entropy": Metric(value=entropy, weight=batch.num_trained)}
        if measure:
            gap_RT = scores.logprobs_RT.detach() - batch.old_logprobs_RT
            metrics |= gap_metrics(gap_RT[batch.loss_mask_RT > 0])
        return Loss(value=loss.value, metrics=metrics | loss.metrics)

    def _batches(self, streams: Streams, chosen: np.ndarray) -> Iterator[tuple[np.ndarray, Batch]]:
        """Cut some samples into micro-batches; yield them with their samples' indices."""
        model, limit = self._model, self._config.max_tokens_per_microbatch
        plan = micro_batches(streams.lengths_S, chosen, max_tokens=limit, packed=model.packs)
        for part in plan:
            yield part, streams.batch(part, packed=model.packs, device=model.device)

    @torch.no_grad()
    def _logprobs(self, model: Any, streams: Streams) -> np.ndarray:
        """Return a model's log-probabilities of every trained token, 0 elsewhere."""
        found_N = np.zeros(len(streams.token_ids_N), np.float32)
        everything = np.arange(len(streams.lengths_S))
        with attending(model, packed=self._model.packs):
            for part, batch in self._batches(streams, everything):
                logprobs_RT = score(model, batch, temperature=self._temperature).logprobs_RT
                cells_RT = batch.segment_ids_RT.cpu().numpy() >= 0
                found_N[streams.places(part)] = logprobs_RT.cpu().numpy()[cells_RT]
        return found_N


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


def _advantage_metrics(streams: Streams) -> Metrics:
    """Summarise the advantages of the trained tokens."""
    advantages_N = streams.advantages_N[streams.loss_mask_N > 0]
    return {
        "critic/advantages/mean": Metric(value=float(advantages_N.mean(dtype=np.float64))),
        "critic/advantages/max": Metric(value=float(advantages_N.max()), reduce="max"),
        "critic/advantages/min": Metric(value=float(advantages_N.min()), reduce="min"),
    }
