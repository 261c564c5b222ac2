"""The sampling distribution, against numbers worked by hand."""

import math

import pytest
import torch

from agentrl.contracts.engine import Sampling
from agentrl.engines.sampling import SamplingPlan, process_logits, sample

CPU = torch.device("cpu")
# Probabilities 0.5, 0.25, 0.125, 0.125 in the order of tokens 2, 0, 1, 3.
LOGITS = torch.tensor([0.25, 0.125, 0.5, 0.125]).log()


def distribution(**parameters: float) -> list[float]:
    plan = SamplingPlan.of([Sampling(max_tokens=1, **parameters)], CPU)
    return process_logits(LOGITS[None], plan).softmax(-1)[0].tolist()


def test_the_defaults_leave_the_softmax():
    assert distribution() == pytest.approx([0.25, 0.125, 0.5, 0.125])


def test_temperature_divides_the_logits():
    # At 0.5 probabilities are squared: 1/16, 1/64, 1/4, 1/64, of sum 22/64.
    assert distribution(temperature=0.5) == pytest.approx([4 / 22, 1 / 22, 16 / 22, 1 / 22])


def test_top_k_keeps_the_highest_and_normalises():
    assert distribution(top_k=2) == pytest.approx([1 / 3, 0, 2 / 3, 0])


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    assert distribution(top_p=0.6) == pytest.approx([1 / 3, 0, 2 / 3, 0])


def test_top_p_keeps_at_least_one_token():
    assert distribution(top_p=0.01) == pytest.approx([0, 0, 1, 0])


def test_top_p_counts_what_top_k_left():
    # Of 2/3 and 1/3 the first alone reaches 0.6; of the whole distribution it would not.
    assert distribution(top_k=2, top_p=0.6) == pytest.approx([0, 0, 1, 0])


def test_top_k_above_the_vocabulary_keeps_all():
    assert distribution(top_k=100) == pytest.approx([0.25, 0.125, 0.5, 0.125])


def test_rows_of_a_batch_have_their_own_parameters():
    plan = SamplingPlan.of(
        [Sampling(max_tokens=1), Sampling(max_tokens=1, top_k=1), Sampling(max_tokens=1)], CPU
    )
    rows = process_logits(LOGITS.expand(3, 4), plan).softmax(-1)
    expected = [[0.25, 0.125, 0.5, 0.125], [0, 0, 1, 0], [0.25, 0.125, 0.5, 0.125]]
    assert torch.allclose(rows, torch.tensor(expected))


def test_the_uniform_picks_the_token_whose_share_it_falls_in():
    uniforms = [0.0, 0.24, 0.26, 0.37, 0.38, 0.87, 0.88, 0.999]
    plan = SamplingPlan.of([Sampling(max_tokens=1)] * 8, CPU)
    tokens, logprobs = sample(LOGITS.expand(8, 4), plan, uniforms)
    assert tokens.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert logprobs.tolist() == pytest.approx(LOGITS[tokens].tolist())


def test_the_largest_uniform_never_picks_a_token_left_out():
    plan = SamplingPlan.of([Sampling(max_tokens=1, top_k=2)], CPU)
    tokens, _ = sample(LOGITS[None], plan, [math.nextafter(1, 0)])
    assert tokens.tolist() == [2]


def test_logprobs_are_of_the_truncated_distribution():
    plan = SamplingPlan.of([Sampling(max_tokens=1, top_k=2)], CPU)
    _, logprobs = sample(LOGITS[None], plan, [0.5])
    assert logprobs.tolist() == pytest.approx([math.log(2 / 3)])


def test_greedy_takes_the_best_and_scores_it_under_the_plain_softmax():
    plan = SamplingPlan.of([Sampling(max_tokens=1, temperature=0, top_k=1, top_p=0.1)], CPU)
    tokens, logprobs = sample(LOGITS[None], plan, [0.0])
    assert tokens.tolist() == [2]
    assert logprobs.tolist() == pytest.approx([math.log(0.5)])


def test_frequencies_follow_the_probabilities():
    count = 4000
    plan = SamplingPlan.of([Sampling(max_tokens=1)] * count, CPU)
    tokens, _ = sample(LOGITS.expand(count, 4), plan, [(i + 0.5) / count for i in range(count)])
    assert torch.bincount(tokens).tolist() == [1000, 500, 2000, 500]


@pytest.mark.parametrize(
    "bad", [{"max_tokens": 0}, {"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -1}]
)
def test_parameters_out_of_range_are_refused_by_name(bad):
    with pytest.raises(ValueError, match=f"sampling.{next(iter(bad))} should be"):
        Sampling(**({"max_tokens": 1} | bad))
