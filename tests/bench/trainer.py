"""How much a whole update costs beside the arithmetic that nobody can avoid.

    python tests/bench/trainer.py

The samples are multi-turn: a prompt, then two to four turns of the policy with answers of a tool
between them, ragged, six tokens in ten trained. All ratios are medians over rounds in which all
sides run in turn, in one process, on one thread, in CPU seconds: on an idle machine those are the
seconds on the wall, on a busy one they still compare.

`update_1k`, `update_49k`: tokens/s of `Learner.learn` (credit, packing, scores, loss, metrics,
gradient clipping, AdamW) over those of a bare forward-backward of the same Llama on the same
tokens (`model(input_ids)`, cross-entropy of the trained tokens, backward; no optimizer), at a
vocabulary of 1,024 and of 49,152. The bare side may choose between padded rows of the same
micro-batches and one sample a pass, and gets the faster.

`packed_vs_padded`: the same update, packed rows over padded ones, on lengths drawn from a
log-normal distribution as they are sampled (sorted by length within each minibatch).

`python_s_per_mtoken`: CPU seconds (one thread) of a whole update with correction and a reference,
per million trained tokens, outside model calls: less what `score` (the model's forward pass and
the softmax over its logits) and the backward pass took. The model is a stub that answers with 32
logits from a table, so that little is subtracted. What remains is credit, packing, tensors,
correction, the loss's arithmetic, metrics and the optimizer: an upper bound of our Python. The
trajectories are made beforehand.

The last line is one JSON object.
"""

import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from agentrl.algorithms.base import Batch
from agentrl.algorithms.grpo import GRPO, GRPOConfig
from agentrl.config.train import CorrectionConfig, OptimizerConfig, TrainConfig
from agentrl.contracts.reward import RewardEntry, RewardLedger
from agentrl.contracts.sample import Sample
from agentrl.contracts.trajectory import Group, Termination, Trajectory, Turn, TurnKind
from agentrl.learner import learner, step
from agentrl.learner.attention import packs
from agentrl.learner.batch import Streams, micro_batches
from agentrl.learner.learner import Learner
from agentrl.learner.models import Model
from agentrl.learner.optimizer import Optimizer

CPU = torch.device("cpu")
MICRO_BATCH = 2048
SAMPLE = Sample(prompt=[{"role": "user", "content": "go"}])
Lengths = Callable[[np.random.Generator], Iterator[tuple[TurnKind, int]]]


def multi_turn(random: np.random.Generator) -> Iterator[tuple[TurnKind, int]]:
    yield TurnKind.PROMPT, int(random.integers(30, 120))
    for turn in range(int(random.integers(2, 5))):
        if turn:
            yield TurnKind.TOOL, int(random.integers(20, 120))
        yield TurnKind.POLICY, int(random.integers(40, 200))


def ragged(random: np.random.Generator) -> Iterator[tuple[TurnKind, int]]:
    yield TurnKind.PROMPT, 32
    yield TurnKind.POLICY, int(np.clip(random.lognormal(4.6, 1.0), 8, 1500))


def make_groups(
    random: np.random.Generator, lengths: Lengths, vocabulary: int, num_groups: int, size: int = 8
) -> list[Group]:
    groups = []
    for number in range(num_groups):
        members = tuple(
            trajectory(f"{number}/{member}", member % 2, list(lengths(random)), random, vocabulary)
            for member in range(size)
        )
        groups.append(Group(id=str(number), sample=SAMPLE, trajectories=members))
    return groups


def trajectory(
    name: str,
    reward: float,
    parts: list[tuple[TurnKind, int]],
    random: np.random.Generator,
    vocabulary: int,
) -> Trajectory:
    turns: list[Turn] = []
    length = 0
    for kind, size in parts:
        streams: dict[str, Any] = {}
        if kind is TurnKind.POLICY:
            logprobs = np.full(size, -np.log(vocabulary), np.float32)
            streams = {"mask": np.ones(size), "logprobs": logprobs, "versions": np.zeros(size)}
        ids = random.integers(0, vocabulary, size)
        parent = len(turns) - 1 if turns else None
        turns.append(
            Turn(kind=kind, messages=(), token_ids=ids, parent=parent, kept=length, **streams)
        )
        length += size
    return Trajectory(
        id=name,
        sample=SAMPLE,
        turns=tuple(turns),
        rewards=RewardLedger((RewardEntry(source="task", value=float(reward)),)),
        termination=Termination.ANSWERED,
    )


def llama(vocabulary: int, hidden_size: int = 128, num_layers: int = 3) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 8 // 3,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


class Update:
    """A whole update, repeated."""

    def __init__(self, model: Any, groups: list[Group], *, packed: bool, **train: Any) -> None:
        settings = {"max_tokens_per_microbatch": MICRO_BATCH, **train}
        reference = model if train.get("correction") else None
        kl = {"coefficient": 0.01} if reference is not None else {}
        self._groups = groups
        self._learner = Learner(
            Model(model=model, tokenizer=None, device=CPU, packs=packed),
            GRPO(GRPOConfig.model_validate({"kl": kl})),
            Optimizer(model, OptimizerConfig(learning_rate=1e-9), total_steps=1000),
            TrainConfig.model_validate(settings),
            temperature=1.0,
            seed=0,
            reference=reference,
        )

    def __call__(self) -> None:
        self._learner.update(1, self._learner.credit(1, self._groups))


class Bare:
    """Forward, cross-entropy and backward of the same tokens, and nothing else."""

    def __init__(self, model: Any, groups: list[Group], *, max_tokens: int) -> None:
        streams = Streams.of(list(GRPO(GRPOConfig()).credit(groups)))
        everything = np.arange(len(streams.lengths_S))
        plan = micro_batches(streams.lengths_S, everything, max_tokens=max_tokens, packed=False)
        self._model = model
        self._total = int(streams.loss_mask_N.sum())
        self._batches: list[Batch] = [
            streams.batch(part, packed=False, device=CPU) for part in plan
        ]

    def __call__(self) -> None:
        self._model.zero_grad(set_to_none=True)
        for batch in self._batches:
            logits = self._model(input_ids=batch.input_ids_RT, use_cache=False).logits[:, :-1]
            mask = batch.loss_mask_RT[:, 1:] > 0
            targets = batch.input_ids_RT[:, 1:][mask]
            loss = torch.nn.functional.cross_entropy(logits[mask], targets, reduction="sum")
            (loss / self._total).backward()


class Free(LlamaForCausalLM):
    """A model that costs nothing: logits from a table."""

    def forward(self, input_ids: Any, logits_to_keep: Any = None, **others: Any) -> Any:
        rows = input_ids if isinstance(logits_to_keep, int) else input_ids[:, logits_to_keep]
        self.logits = torch.nn.functional.embedding(rows % 8, self.lm_head.weight)
        return self


class Stopwatch:
    """Adds up the CPU seconds that calls of a module's function take."""

    def __init__(self, module: Any, name: str) -> None:
        self.total = 0.0
        self._function = getattr(module, name)
        setattr(module, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        result = self._function(*args, **kwargs)
        self.total += time.process_time() - began
        return result


def seconds(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def ratio(ours: Callable[[], None], others: list[Callable[[], None]], rounds: int) -> float:
    """Return how many times faster `ours` is than the fastest of `others`, by median of rounds."""
    for work in (ours, *others):
        work()
    ratios: list[list[float]] = []
    for _ in range(rounds):
        times = [seconds(work) for work in (ours, *others)]
        ratios.append([other / times[0] for other in times[1:]])
        print("  " + ", other ".join(f"{t:.3f} s" for t in times), flush=True)
    return min(map(statistics.median, zip(*ratios, strict=True)))


def update(vocabulary: int, num_groups: int, rounds: int) -> float:
    groups = make_groups(np.random.default_rng(0), multi_turn, vocabulary, num_groups)
    model = llama(vocabulary)
    assert packs(model)
    bare: list[Callable[[], None]] = [
        Bare(model, groups, max_tokens=size) for size in (MICRO_BATCH, 1)
    ]
    return ratio(Update(model, groups, packed=True), bare, rounds)


def packed_vs_padded(rounds: int) -> float:
    groups = make_groups(np.random.default_rng(1), ragged, 1024, num_groups=8)
    model = llama(1024)
    return ratio(
        Update(model, groups, packed=True, max_tokens_per_microbatch=4 * MICRO_BATCH),
        [Update(model, groups, packed=False, max_tokens_per_microbatch=4 * MICRO_BATCH)],
        rounds,
    )


def python_s_per_mtoken(rounds: int) -> float:
    groups = make_groups(np.random.default_rng(2), multi_turn, 8, num_groups=256)
    torch.manual_seed(0)
    free = Free(LlamaConfig(vocab_size=8, hidden_size=32, num_hidden_layers=1)).eval()
    work = Update(
        free,
        groups,
        packed=True,
        correction=CorrectionConfig(type="truncate"),
        max_tokens_per_microbatch=16_384,
    )
    masks = [turn.mask for group in groups for t in group.trajectories for turn in t.turns]
    trained = sum(int(mask.sum()) for mask in masks)
    model_calls = [
        Stopwatch(learner, "score"),
        Stopwatch(step, "score"),
        Stopwatch(torch.autograd, "backward"),
    ]
    work()
    times = []
    for _ in range(rounds):
        before = sum(watch.total for watch in model_calls)
        began = time.process_time()
        work()
        whole = time.process_time() - began
        inside = sum(watch.total for watch in model_calls) - before
        times.append(whole - inside)
        print(f"  {whole:.3f} s, of them {inside:.3f} s in model calls", flush=True)
    return statistics.median(times) / trained * 1e6


def main(*names: str) -> None:
    torch.set_num_threads(1)  # so that a busy machine disturbs both sides alike
    logging.disable(logging.WARNING)  # the samples are nobody's: of course the engine differs
    figures = {}
    for name, measure in {
        "update_1k": lambda: update(1024, num_groups=2, rounds=5),
        "update_49k": lambda: update(49_152, num_groups=1, rounds=5),
        "packed_vs_padded": lambda: packed_vs_padded(rounds=7),
        "python_s_per_mtoken": lambda: python_s_per_mtoken(rounds=3),
    }.items():
        if names and name not in names:
            continue
        print(name, flush=True)
        figures[name] = round(measure(), 3)
        print(f"{name}: {figures[name]}", flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
