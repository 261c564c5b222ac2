import numpy as np
import pytest
import torch
from learner_support import CPU, make_sample, tiny_model

from agentrl.learner import scores
from agentrl.learner.attention import attending
from agentrl.learner.batch import Streams
from agentrl.learner.scores import score

SAMPLES = [
    make_sample([5, 6, 7, 8, 9], [0, 0, 1, 0, 1]),
    make_sample([11, 12, 13], [0, 1, 1]),
]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("chunk", [1, 2**20])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_scores_and_gradient_equal_torchs_own(
    tiny_policy: str,
    packed: bool,
    chunk: int,
    temperature: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scores, "CHUNK_VALUES", {"cpu": chunk})
    model = tiny_model(tiny_policy).model
    slopes = torch.tensor([0.5, -1.0, 2.0, 0.25])
    expected, entropy = [], []
    for sample in SAMPLES:
        ids = torch.from_numpy(sample.token_ids).long()[None]
        rows = (model(input_ids=ids).logits[0, :-1] / temperature).log_softmax(-1)
        entropy += (-(rows.exp() * rows).sum(-1))[sample.loss_mask[1:] > 0].tolist()
        expected.append(rows.gather(-1, ids[0, 1:, None])[:, 0][sample.loss_mask[1:] > 0])
    (torch.cat(expected) * slopes).sum().backward()
    by_torch = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()

    batch = Streams.of(SAMPLES).batch(np.arange(2), packed=packed, device=CPU)
    with attending(model, packed=packed):
        got = score(model, batch, temperature=temperature)
        chosen = batch.loss_mask_RT > 0
        (got.logprobs_RT[chosen] * slopes).sum().backward()
    assert torch.allclose(got.logprobs_RT[chosen], torch.cat(expected), atol=1e-5)
    assert got.entropy_RT[chosen].tolist() == pytest.approx(entropy, abs=1e-5)
    assert not got.logprobs_RT[~chosen].any()
    for ours, theirs in zip(model.parameters(), by_torch, strict=True):
        assert torch.allclose(ours.grad, theirs, atol=1e-6)


def test_a_logit_of_minus_infinity_is_a_probability_of_zero() -> None:
    logits = torch.tensor([[0.0, 0.0, -torch.inf]], requires_grad=True)
    logprobs, entropy = scores._Scores.apply(logits * 1, None, torch.tensor([0]), 1.0)
    logprobs.sum().backward()
    assert logprobs.item() == pytest.approx(-np.log(2))
    assert entropy.item() == pytest.approx(np.log(2))
    assert logits.grad.tolist() == [[0.5, -0.5, 0.0]]
