"""Batches, trajectories and models that tests of algorithms and the learner share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from agentrl.algorithms.base import Batch, Loss, MinibatchTotals, TokenScores
from agentrl.algorithms.grpo import GRPO, GRPOConfig
from agentrl.algorithms.samples import TrainSample
from agentrl.config.train import OptimizerConfig
from agentrl.contracts.reward import RewardEntry, RewardLedger
from agentrl.contracts.sample import Sample
from agentrl.contracts.trajectory import Group, Termination, Trajectory, Turn, TurnKind
from agentrl.learner.attention import packs
from agentrl.learner.batch import Streams, micro_batches
from agentrl.learner.models import Model
from agentrl.learner.optimizer import Optimizer
from agentrl.learner.step import take_step
from agentrl.plugins.reference import load_plugin

CPU = torch.device("cpu")
SAMPLE = Sample(prompt=[{"role": "user", "content": "go"}])
Rows = Sequence[Sequence[float]]


def make_batch(
    mask: Sequence[Sequence[int]],
    old: Rows,
    advantages: Rows,
    *,
    ref: Rows | None = None,
    weights: Rows | None = None,
    segments: Sequence[Sequence[int]] | None = None,
) -> Batch:
    """Return a batch of one segment a row, or of the given ones, in float64."""
    mask_RT = torch.tensor(mask)
    rows, width = mask_RT.shape
    segments_RT = torch.arange(rows)[:, None].expand(rows, width)
    if segments is not None:
        segments_RT = torch.tensor(segments)

    def tensor(values: Rows | None) -> torch.Tensor | None:
        return None if values is None else torch.tensor(values, dtype=torch.float64)

    filled = segments_RT[segments_RT >= 0]
    return Batch(
        input_ids_RT=torch.zeros(rows, width, dtype=torch.long),
        position_ids_RT=torch.zeros(rows, width, dtype=torch.long),
        segment_ids_RT=segments_RT,
        loss_mask_RT=mask_RT,
        old_logprobs_RT=torch.tensor(old, dtype=torch.float64),
        advantages_RT=torch.tensor(advantages, dtype=torch.float64),
        ref_logprobs_RT=tensor(ref),
        weights_RT=tensor(weights),
        sequence_tokens_S=segments_RT[mask_RT > 0].bincount(minlength=int(filled.max()) + 1),
        segment_lengths=tuple(filled.bincount().tolist()),
        num_trained=int(mask_RT.sum()),
    )


def make_scores(logprobs_RT: torch.Tensor) -> TokenScores:
    return TokenScores(logprobs_RT=logprobs_RT, entropy_RT=torch.zeros_like(logprobs_RT))


def leaf(values: Rows) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def totals(num_tokens: int, num_sequences: int) -> MinibatchTotals:
    return MinibatchTotals(num_tokens=num_tokens, num_sequences=num_sequences)


def make_turn(kind: TurnKind, ids: Sequence[int], parent: int, kept: int, **changes: Any) -> Turn:
    """Return a turn; a policy turn is trained, with logprobs -id/100 and version 0."""
    streams: dict[str, Any] = {}
    if kind is TurnKind.POLICY:
        streams = {
            "mask": [1] * len(ids),
            "logprobs": [-i / 100 for i in ids],
            "versions": [0] * len(ids),
        }
    fields: dict[str, Any] = {"messages": ({"role": "x", "content": "x"},), **streams, **changes}
    return Turn(kind=kind, token_ids=ids, parent=parent, kept=kept, **fields)


def make_trajectory(*turns: Turn, reward: float = 0.0, **changes: Any) -> Trajectory:
    """Return a trajectory behind the prompt `1 2 3`."""
    prompt = Turn(kind=TurnKind.PROMPT, messages=(), token_ids=[1, 2, 3])
    fields: dict[str, Any] = {
        "id": "t",
        "sample": SAMPLE,
        "turns": (prompt, *turns),
        "rewards": RewardLedger((RewardEntry(source="task", value=reward),)),
        "termination": Termination.ANSWERED,
    }
    return Trajectory(**(fields | changes))


def make_group(
    rewards: Sequence[float], *, dropped: tuple[int, ...] = (), lengths: Sequence[int] = ()
) -> Group:
    """Return a group of one policy turn each, of two tokens or the given lengths."""
    sizes = lengths or [2] * len(rewards)
    return Group(
        id="g",
        sample=SAMPLE,
        trajectories=tuple(
            make_trajectory(
                make_turn(TurnKind.POLICY, [10 + i] * size, 0, 3),
                reward=reward,
                id=str(i),
                dropped=i in dropped,
            )
            for i, (reward, size) in enumerate(zip(rewards, sizes, strict=True))
        ),
    )


def make_sample(
    ids: Sequence[int], mask: Sequence[int], logprobs: Sequence[float] = (), **streams: Any
) -> TrainSample:
    return TrainSample(
        token_ids=np.array(ids, np.int32),
        loss_mask=np.array(mask, np.uint8),
        logprobs=np.array(logprobs or [0.0] * len(ids), np.float32),
        **{name: np.asarray(values, np.float32) for name, values in streams.items()},
    )


def tiny_model(reference: str, *, packed: bool | None = None) -> Model:
    model, tokenizer = load_plugin(reference)(0)
    wanted = packs(model) if packed is None else packed
    return Model(model=model.eval(), tokenizer=tokenizer, device=CPU, packs=wanted)


class Keeping(Optimizer):
    """An optimizer that remembers the gradients it stepped with."""

    def step(self) -> float:
        self.gradients = [p.grad.clone() for p in self._masters]
        return super().step()


def gradient(
    policy: Model, samples: list[TrainSample], *, packed: bool = True, max_tokens: int = 100_000
) -> tuple[float, list[torch.Tensor]]:
    """Return loss and gradient; the weights stay."""
    streams, everything, algorithm = (
        Streams.of(samples),
        np.arange(len(samples)),
        GRPO(GRPOConfig()),
    )
    model = Model(model=policy.model, tokenizer=None, device=CPU, packs=packed)
    optimizer = Keeping(policy.model, OptimizerConfig(learning_rate=1e-30), total_steps=1)
    plan = micro_batches(streams.lengths_S, everything, max_tokens=max_tokens, packed=packed)
    counts = MinibatchTotals(num_tokens=int(streams.loss_mask_N.sum()), num_sequences=len(samples))
    losses: list[float] = []

    def loss_fn(scores: TokenScores, batch: Batch) -> Loss:
        loss = algorithm.compute_loss(scores, batch, counts)
        losses.append(loss.value.item())
        return loss

    batches = (streams.batch(part, packed=packed, device=CPU) for part in plan)
    take_step(model, optimizer, batches, loss_fn)
    return sum(losses), optimizer.gradients
