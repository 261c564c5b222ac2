"""Every branch of the clipped surrogate and of the KL penalty, worked out by hand."""

import math

import pytest
from learner_support import leaf, make_batch, make_scores, totals

from agentrl.algorithms.grpo import GRPO, GRPOConfig
from agentrl.contracts.metric import reduce_metrics


@pytest.mark.parametrize(
    ("new", "advantage", "loss", "slope"),
    [
        # Bounds [0.8, 1.3], old = -1. The surrogate is min(r A, clip(r) A); its negative is the
        # loss, and dr/dnew = r.
        # r = e^0.5 = 1.6487213: above the bound.
        (-0.5, 2.0, -2.6, 0.0),  # min(3.297, 2.6): clipped, no gradient
        (-0.5, -2.0, 3.2974425, 3.2974425),  # min(-3.297, -2.6): not clipped, pushed back
        # r = e^-0.5 = 0.6065307: below the bound.
        (-1.5, 2.0, -1.2130613, -1.2130613),  # min(1.213, 1.6): not clipped, pulled back
        (-1.5, -2.0, 1.6, 0.0),  # min(-1.213, -1.6): clipped, no gradient
        # r = e^0.1 = 1.1051709: inside the bounds.
        (-0.9, 2.0, -2.2103418, -2.2103418),
        (-0.9, -2.0, 2.2103418, 2.2103418),
        (-0.9, 0.0, 0.0, 0.0),
    ],
)
def test_the_surrogate_is_clipped_only_where_that_makes_it_worse(
    new: float, advantage: float, loss: float, slope: float
) -> None:
    new_RT = leaf([[0.0, new]])
    batch = make_batch([[0, 1]], [[0.0, -1.0]], [[advantage, advantage]])
    algorithm = GRPO(GRPOConfig(clip_low=0.2, clip_high=0.3))
    got = algorithm.compute_loss(make_scores(new_RT), batch, totals(1, 1)).value
    got.backward()
    assert got.item() == pytest.approx(loss, abs=1e-6)
    assert new_RT.grad is not None
    assert new_RT.grad[0].tolist() == pytest.approx([0.0, slope], abs=1e-6)


@pytest.mark.parametrize(
    ("estimator", "penalty", "slope"),
    [
        # new = old = -1, ref = -1.4 and -0.5, so x = ref - new is -0.4 and 0.5; A = 0; N = 2.
        # k1 = -x: (0.4 - 0.5) / 2; its derivative by new is 1 for each token.
        ("k1", -0.05, [0.5, 0.5]),
        # k2 = x^2 / 2: (0.08 + 0.125) / 2; derivative -x.
        ("k2", 0.1025, [0.2, -0.25]),
        # k3 = e^x - 1 - x: (0.0703200 + 0.1487213) / 2; derivative 1 - e^x.
        ("k3", 0.10952066, [0.1648400, -0.3243606]),
    ],
)
def test_the_penalty_and_its_gradient_equal_hand_worked_ones(
    estimator: str, penalty: float, slope: list[float]
) -> None:
    new_RT = leaf([[-1.0, -1.0]])
    batch = make_batch([[1, 1]], [[-1.0, -1.0]], [[0.0, 0.0]], ref=[[-1.4, -0.5]])
    config = GRPOConfig.model_validate({"kl": {"coefficient": 0.1, "estimator": estimator}})
    loss = GRPO(config).compute_loss(make_scores(new_RT), batch, totals(2, 1))
    loss.value.backward()
    metrics = reduce_metrics([loss.metrics])
    assert metrics["actor/kl_loss"] == pytest.approx(penalty, abs=1e-6)
    assert loss.value.item() == pytest.approx(0.1 * penalty, abs=1e-7)
    assert new_RT.grad is not None
    assert new_RT.grad[0].tolist() == pytest.approx([0.1 * s for s in slope], abs=1e-7)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("poison", [1e9, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("field", ["new", "old", "ref", "advantage"])
def test_no_value_at_a_masked_position_reaches_loss_metrics_or_gradient(
    field: str, poison: float, estimator: str
) -> None:
    def run(value: float) -> tuple[float, dict[str, float], list[float]]:
        at = {name: value if name == field else 0.0 for name in ("new", "old", "ref", "advantage")}
        new_RT = leaf([[at["new"], -1.0, -0.5]])
        batch = make_batch(
            [[0, 1, 1]],
            [[at["old"], -1.1, -0.4]],
            [[at["advantage"], 1.0, 1.0]],
            ref=[[at["ref"], -1.2, -0.6]],
        )
        config = GRPOConfig.model_validate({"kl": {"coefficient": 0.1, "estimator": estimator}})
        loss = GRPO(config).compute_loss(make_scores(new_RT), batch, totals(2, 1))
        loss.value.backward()
        assert new_RT.grad is not None
        return loss.value.item(), reduce_metrics([loss.metrics]), new_RT.grad[0].tolist()

    assert run(poison) == run(0.0)
