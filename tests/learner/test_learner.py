import ast
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learner_support import CPU, gradient, make_group, make_sample, tiny_model
from typing_extensions import override

from agentrl.algorithms.base import Batch, Loss, MinibatchTotals, RLAlgorithm, TokenScores
from agentrl.algorithms.grpo import GRPO, GRPOConfig
from agentrl.algorithms.registry import build_algorithm
from agentrl.algorithms.samples import TrainSample
from agentrl.config.train import AnyAlgorithmConfig, OptimizerConfig, TrainConfig
from agentrl.contracts.metric import Metric
from agentrl.contracts.trajectory import Group
from agentrl.errors import ConfigError, RunError
from agentrl.learner.batch import Streams
from agentrl.learner.learner import Learner
from agentrl.learner.models import Model
from agentrl.learner.optimizer import Optimizer
from agentrl.learner.scores import score

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.fixture
def policy(tiny_policy: str) -> Model:
    policy = tiny_model(tiny_policy)
    with torch.no_grad():
        # Makes the stop token likely, so that untrained dialogues have several turns.
        policy.model.model.embed_tokens.weight[0] *= 12
    return policy


def learner(policy: Model, algorithm: RLAlgorithm | None = None, **train: Any) -> Learner:
    return Learner(
        policy,
        algorithm or GRPO(GRPOConfig()),
        Optimizer(policy.model, OptimizerConfig(learning_rate=1e-3), total_steps=9),
        TrainConfig.model_validate(train),
        temperature=1.0,
        seed=0,
    )


def learn(of: Learner, step: int, groups: list[Group]) -> dict[str, float]:
    return of.update(step, of.credit(step, groups))


def batch_of(samples: list[TrainSample], *, packed: bool = False) -> Batch:
    return Streams.of(samples).batch(np.arange(len(samples)), packed=packed, device=CPU)


def test_the_gradient_depends_neither_on_micro_batches_nor_on_packing(policy: Model) -> None:
    random = np.random.default_rng(0)
    samples = []
    for size in (5, 40, 17, 28):
        mask = [0, *(random.random(size - 2) > 0.3).astype(int), 1]
        advantages = [1.0 if size % 2 else -0.5] * size
        ids = random.integers(5, 200, size).tolist()
        samples.append(make_sample(ids, mask, [-5.0] * size, advantages=advantages))
    whole_loss, whole = gradient(policy, samples, packed=False, max_tokens=1)
    for packed, max_tokens in ((False, 100_000), (True, 100_000), (True, 45)):
        loss, parts = gradient(policy, samples, packed=packed, max_tokens=max_tokens)
        assert loss == pytest.approx(whole_loss, abs=1e-6)
        for one, other in zip(whole, parts, strict=True):
            assert torch.allclose(one, other, atol=1e-6)


def test_what_stands_at_masked_positions_after_the_last_trained_token_is_ignored(
    policy: Model,
) -> None:
    def run(last: int, old: float) -> tuple[float, list[torch.Tensor]]:
        one = make_sample(
            [5, 6, 7, 8, last, last],
            [0, 0, 1, 1, 0, 0],
            [old, old, -5.0, -5.0, old, old],
            advantages=[1.0] * 6,
        )
        return gradient(policy, [one])

    clean_loss, clean = run(9, 0.0)
    loss, changed = run(77, float("nan"))
    assert loss == clean_loss
    assert all(torch.equal(a, b) for a, b in zip(clean, changed, strict=True))


def test_nothing_to_learn_changes_nothing(policy: Model) -> None:
    before = [p.detach().clone() for p in policy.model.parameters()]
    metrics = learn(learner(policy), 1, [make_group([1, 1])])
    assert metrics == {"actor/lr": 1e-3, "train/sequences": 0}
    assert all(torch.equal(a, b) for a, b in zip(before, policy.model.parameters(), strict=True))


class Diary(GRPO):
    """Writes down what it is asked, and which samples it sees."""

    def __init__(self) -> None:
        super().__init__(GRPOConfig())
        self.diary: list[str] = []
        self.seen: list[float] = []
        self.sizes: list[int] = []

    @override
    def before_train_step(self, step: int, groups: Sequence[Group]) -> None:
        self.diary.append(f"before {step}")

    @override
    def credit(self, groups: Sequence[Group]) -> Iterator[TrainSample]:
        self.diary.append("credit")
        yield from super().credit(groups)

    @override
    def compute_loss(self, scores: TokenScores, batch: Batch, totals: MinibatchTotals) -> Loss:
        self.diary.append("loss")
        self.seen += batch.old_logprobs_RT[batch.loss_mask_RT > 0].tolist()
        self.sizes.append(totals.num_sequences)
        return super().compute_loss(scores, batch, totals)

    @override
    def after_train_step(self, step: int, metrics: Mapping[str, float]) -> None:
        self.diary.append(f"after {step}: {metrics['train/sequences']:.0f}")

    @override
    def get_metrics(self) -> dict[str, Metric]:
        self.diary.append("metrics")
        return {"mine/entries": Metric(value=len(self.diary))}


def test_the_hooks_of_an_algorithm_are_called_in_order(policy: Model) -> None:
    algorithm = Diary()
    metrics = learn(learner(policy, algorithm), 7, [make_group([1, 0])])
    assert algorithm.diary == ["before 7", "credit", "loss", "after 7: 2", "metrics"]
    assert metrics["mine/entries"] == 5


def test_all_passes_compare_with_the_logprobs_of_the_engine(policy: Model) -> None:
    algorithm = Diary()
    group = make_group([1, 0, 0.5, 1], lengths=[3, 1, 4, 2])
    settings = {"epochs_per_step": 3, "minibatches_per_epoch": 2, "max_tokens_per_microbatch": 8}
    learn(learner(policy, algorithm, **settings), 1, [group])
    sampled = [x for t in group.trajectories for x in t.turns[1].logprobs.tolist()]
    assert sorted(algorithm.seen) == pytest.approx(sorted(sampled * 3))


def test_minibatches_are_as_many_as_configured_and_of_like_size(policy: Model) -> None:
    algorithm = Diary()
    learn(learner(policy, algorithm, minibatches_per_epoch=4), 1, [make_group([1, 0, 1, 0, 0])])
    assert algorithm.sizes == [2, 1, 1, 1]


def test_a_role_that_is_not_there_is_refused(policy: Model) -> None:
    class Critical(GRPO):
        needs = frozenset({"critic"})

    with pytest.raises(ConfigError, match=r"Critical needs the roles \['critic'\].*yet"):
        learner(policy, Critical(GRPOConfig()))


def test_a_reference_scores_the_samples(policy: Model) -> None:
    algorithm = GRPO(GRPOConfig.model_validate({"kl": {"coefficient": 0.1, "estimator": "k2"}}))
    reference = policy.frozen_copy()
    with torch.no_grad():
        reference.model.embed_tokens.weight[0] *= 0.5
    one = Learner(
        policy,
        algorithm,
        Optimizer(policy.model, OptimizerConfig(), total_steps=1),
        TrainConfig(),
        temperature=1.0,
        seed=0,
        reference=reference,
    )
    group = make_group([1, 0])
    batch = batch_of(list(algorithm.credit([group])))
    with torch.no_grad():
        gaps = (
            score(policy.model, batch, temperature=1.0).logprobs_RT
            - score(reference, batch, temperature=1.0).logprobs_RT
        )
    expected = float(gaps.square().sum() / 2 / 4)
    assert expected > 0
    assert learn(one, 1, [group])["actor/kl_loss"] == pytest.approx(expected, rel=1e-4)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_weights(policy: Model) -> None:
    class Broken(GRPO):
        @override
        def compute_loss(self, scores: TokenScores, batch: Batch, totals: MinibatchTotals) -> Loss:
            return Loss(value=scores.logprobs_RT.sum() * math.nan)

    before = [p.detach().clone() for p in policy.model.parameters()]
    with pytest.raises(RunError, match=r"the loss is nan.*optimizer\.learning_rate"):
        learn(learner(policy, Broken(GRPOConfig())), 1, [make_group([1, 0])])
    assert all(torch.equal(a, b) for a, b in zip(before, policy.model.parameters(), strict=True))


def test_dropout_is_off_while_learning(policy: Model) -> None:
    modes = []

    class Looking(GRPO):
        @override
        def compute_loss(self, scores: TokenScores, batch: Batch, totals: MinibatchTotals) -> Loss:
            modes.extend(module.training for module in policy.model.modules())
            return super().compute_loss(scores, batch, totals)

    learn(
        learner(policy.__class__(model=policy.model.train(), tokenizer=None, device=CPU)),
        1,
        [make_group([1, 1])],
    )
    learn(learner(policy, Looking(GRPOConfig())), 1, [make_group([1, 0])])
    assert modes and not any(modes)


def test_the_example_algorithm_reshapes_adjusts_itself_and_is_heard(policy: Model) -> None:
    def build() -> RLAlgorithm:
        options = AnyAlgorithmConfig.model_validate(
            {"type": "length_aware.py:LengthAware", "target_length": 3, "penalty": 0.5}
        )
        return build_algorithm(options, base=EXAMPLES)

    algorithm = build()
    # Mean length 4, target 3: a response of 6 is 3 too long, one of 2 is not.
    group = make_group([1, 0], lengths=[2, 6])
    long = [s for s in algorithm.credit([group]) if len(s.token_ids) == 9]
    plain = GRPO(GRPOConfig()).credit([group])
    (expected,) = [s for s in plain if len(s.token_ids) == 9]
    assert long[0].advantages[0] == pytest.approx(expected.advantages[0] - 0.5 * (6 - 3) / 3)

    metrics = learn(learner(policy, algorithm), 1, [group])
    assert metrics["length_aware/mean_length"] == 4
    assert metrics["length_aware/target_length"] == pytest.approx(3 + 0.1 * (4 - 3))
    resumed = build()
    resumed.load_state_dict(algorithm.state_dict())
    assert resumed.get_metrics() == algorithm.get_metrics()


def test_the_example_algorithm_fits_in_forty_lines_of_code() -> None:
    lines = (EXAMPLES / "length_aware.py").read_text().splitlines()
    strings = {
        line
        for node in ast.walk(ast.parse("\n".join(lines)))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    code = [
        line
        for number, line in enumerate(lines, 1)
        if number not in strings and line.strip() and not line.strip().startswith("#")
    ]
    assert len(code) <= 40
