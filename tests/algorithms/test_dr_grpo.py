import pytest
from learner_support import leaf, make_batch, make_group, make_scores, totals

from agentrl.algorithms.dr_grpo import DrGRPO, DrGRPOConfig
from agentrl.contracts.metric import reduce_metrics


def test_advantages_are_not_divided_by_the_deviation() -> None:
    samples = DrGRPO(DrGRPOConfig()).credit([make_group([4, 0])])
    assert [float(s.advantages[0]) for s in samples] == [2.0, -2.0]


def test_token_losses_are_summed_and_divided_by_a_constant() -> None:
    # Ratio 1: losses -2, -2 and 1; the constant is 2 sequences x 10 tokens, whatever their
    # lengths; k2 with ref - new = 0.2 on one token adds 0.5 * 0.02 / 20.
    new = leaf([[-1.0, -1.0], [-1.0, 0.0]])
    batch = make_batch(
        [[1, 1], [1, 0]],
        [[-1.0, -1.0], [-1.0, 0.0]],
        [[2.0] * 2, [-1.0] * 2],
        ref=[[-0.8, -1.0], [-1.0, 0.0]],
    )
    options = DrGRPOConfig.model_validate(
        {"normalizer_tokens": 10, "kl": {"coefficient": 0.5, "estimator": "k2"}}
    )
    loss = DrGRPO(options).compute_loss(make_scores(new), batch, totals(3, 2))
    loss.value.backward()
    assert loss.value.item() == pytest.approx(-3 / 20 + 0.5 * 0.02 / 20)
    assert new.grad[1].tolist() == [pytest.approx(1 / 20), 0.0]
    assert reduce_metrics([loss.metrics])["actor/pg_loss"] == pytest.approx(-3 / 20)


def test_a_reference_is_needed_for_a_penalty_only() -> None:
    assert DrGRPO(DrGRPOConfig()).needs == set()
    options = DrGRPOConfig.model_validate({"kl": {"coefficient": 0.1}})
    assert DrGRPO(options).needs == {"reference"}
