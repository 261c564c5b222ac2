"""The embedded engine against the model's own forward pass and `generate`."""

import asyncio
import random
import threading

import pytest
import torch
from engines_support import Written, ask, published
from transformers import MambaConfig, MambaForCausalLM

from agentrl.contracts.engine import Sampling
from agentrl.engines.transformers import TransformersEngine
from agentrl.errors import ConfigError, EngineError

from .conftest import VOCAB, build_model


def make_prompts(count: int, *, longest: int = 20) -> list[list[int]]:
    rng = random.Random(7)
    return [[rng.randrange(VOCAB) for _ in range(rng.randrange(1, longest))] for _ in range(count)]


@torch.no_grad()
def full_logprobs(model, prompt: list[int], completion: Written, temperature: float = 1.0):
    """Score a completion with one uncached forward pass."""
    tokens = torch.tensor([prompt + completion.token_ids])
    logits = model(tokens).logits[0, len(prompt) - 1 : -1].float() / temperature
    return logits.log_softmax(-1).gather(-1, tokens[0, len(prompt) :, None])[:, 0]


async def generate_all(engine, prompts, samplings) -> list[Written]:
    calls = (
        ask(engine, prompt, sampling, session=str(i))
        for i, (prompt, sampling) in enumerate(zip(prompts, samplings, strict=True))
    )
    return await asyncio.gather(*calls)


@pytest.fixture
async def engine(model):
    engine = TransformersEngine(model)
    yield engine
    await engine.close()


async def test_logprobs_equal_a_full_forward_pass(any_model):
    engine = TransformersEngine(any_model, max_batch=5, max_prefill_tokens=40)
    prompts = make_prompts(12)
    samplings = [
        Sampling(max_tokens=3 + 5 * (i % 4), temperature=0.5 + i % 3, seed=i) for i in range(12)
    ]
    done = await generate_all(engine, prompts, samplings)
    for prompt, sampling, completion in zip(prompts, samplings, done, strict=True):
        expected = full_logprobs(any_model, prompt, completion, sampling.temperature)
        assert len(completion.token_ids) == sampling.max_tokens
        assert torch.allclose(torch.tensor(completion.logprobs), expected, atol=1e-4)
    await engine.close()


async def test_greedy_equals_the_models_own_generate(any_model):
    engine = TransformersEngine(any_model)
    prompts = make_prompts(6)
    done = await generate_all(engine, prompts, [Sampling(max_tokens=24, temperature=0)] * 6)
    for prompt, completion in zip(prompts, done, strict=True):
        expected = any_model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=24,
            do_sample=False,
            pad_token_id=0,
        )
        assert completion.token_ids == expected[0, len(prompt) :].tolist()
    await engine.close()


async def test_a_request_joins_while_others_run(model, engine):
    first = asyncio.create_task(
        ask(engine, [1, 2, 3], Sampling(max_tokens=80, temperature=0), session="long")
    )
    while engine.stats.steps < 3:
        await asyncio.sleep(0)
    prompt = [5] * 12
    joined = await ask(engine, prompt, Sampling(max_tokens=4, seed=1), session="joins")
    assert not first.done()
    alone = await first
    for ids, completion in (([1, 2, 3], alone), (prompt, joined)):
        expected = full_logprobs(model, ids, completion)
        assert torch.allclose(torch.tensor(completion.logprobs), expected, atol=1e-4)


async def test_concurrent_requests_share_decode_steps(engine):
    await generate_all(engine, [[3]] * 8, [Sampling(max_tokens=11, seed=i) for i in range(8)])
    assert engine.stats.steps == 10
    assert engine.stats.mean_batch == 8
    assert engine.stats.generated_tokens == 88


async def test_no_more_than_max_batch_rows_run_together(model):
    engine = TransformersEngine(model, max_batch=3)
    await generate_all(engine, [[3]] * 7, [Sampling(max_tokens=5)] * 7)
    assert engine.stats.mean_batch <= 3
    assert engine.stats.generated_tokens == 35
    await engine.close()


async def test_rows_of_one_prompt_differ_by_their_seed_alone(engine):
    samplings = [Sampling(max_tokens=12, seed=i % 2) for i in range(4)]
    done = await generate_all(engine, [[4, 5]] * 4, samplings)
    assert done[0].token_ids == done[2].token_ids
    # Rows of one batch may differ in the last bits of their logits.
    assert done[0].logprobs == pytest.approx(done[2].logprobs, abs=1e-5)
    assert done[0].token_ids != done[1].token_ids


async def test_a_cancelled_request_frees_its_row_and_the_others_go_on(model, engine):
    doomed = asyncio.create_task(ask(engine, [1] * 9, Sampling(max_tokens=80), session="doomed"))
    kept = asyncio.create_task(ask(engine, [2], Sampling(max_tokens=60, seed=3), session="kept"))
    while engine.stats.steps < 3:
        await asyncio.sleep(0)
    doomed.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doomed
    completion = await kept
    assert engine.stats.stepped_rows < 100
    expected = full_logprobs(model, [2], completion)
    assert torch.allclose(torch.tensor(completion.logprobs), expected, atol=1e-4)


async def test_the_engine_is_idle_after_sleep(engine):
    task = asyncio.create_task(ask(engine, [1], Sampling(max_tokens=80), session="a"))
    while engine.stats.steps < 1:
        await asyncio.sleep(0)
    task.cancel()
    await engine.sleep()
    steps = engine.stats.steps
    await asyncio.sleep(0.01)
    assert engine.stats.steps == steps


async def test_a_seed_gives_the_same_tokens_whatever_its_batch_mates(engine):
    sampling = Sampling(max_tokens=30, seed=11)
    alone = await ask(engine, [7, 8], sampling, session="a")
    mates = [Sampling(max_tokens=5 + i, seed=i) for i in range(9)]
    done = await generate_all(engine, [*make_prompts(9), [7, 8]], [*mates, sampling])
    assert done[-1].token_ids == alone.token_ids


async def test_requests_without_a_seed_differ(engine):
    done = await generate_all(engine, [[1]] * 2, [Sampling(max_tokens=30)] * 2)
    assert done[0].token_ids != done[1].token_ids


async def test_top_k_one_equals_greedy_with_probability_one(engine):
    greedy = await ask(engine, [4], Sampling(max_tokens=9, temperature=0), session="a")
    top = await ask(engine, [4], Sampling(max_tokens=9, top_k=1), session="b")
    assert top.token_ids == greedy.token_ids
    assert top.logprobs == [0.0] * 9


async def test_a_stop_token_ends_the_completion_and_is_its_last_token(engine):
    free = await ask(engine, [4], Sampling(max_tokens=20, temperature=0), session="a")
    stop = free.token_ids[6]
    sampling = Sampling(max_tokens=20, temperature=0, stop_token_ids=(stop,))
    done = await ask(engine, [4], sampling, session="b")
    end = free.token_ids.index(stop) + 1
    assert done.token_ids == free.token_ids[:end]
    assert done.finish_reason == "stop"
    assert free.finish_reason == "length"


async def test_one_token_may_be_asked_for(engine):
    done = await ask(engine, [4], Sampling(max_tokens=1), session="a")
    assert (len(done.token_ids), done.finish_reason) == (1, "length")


def test_a_model_with_recurrent_layers_is_refused_at_once():
    model = MambaForCausalLM(MambaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1))
    with pytest.raises(ConfigError, match="layer 0 of 'mamba' uses LinearAttentionLayer"):
        TransformersEngine(model)


async def test_generation_ends_at_the_models_last_position(engine):
    done = await ask(engine, [1] * 90, Sampling(max_tokens=50), session="a")
    assert (len(done.token_ids), done.finish_reason) == (6, "length")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([1] * 96, "96 prompt tokens leave no room"),
        ([VOCAB], r"should lie in \[0, 61\)"),
        ([], "at least one prompt token"),
    ],
)
async def test_a_prompt_that_cannot_be_completed_is_refused(engine, prompt, message):
    with pytest.raises(EngineError, match=message):
        await ask(engine, prompt, Sampling(max_tokens=5), session="a")


async def test_a_failing_forward_pass_fails_the_requests_and_not_the_engine(model, engine):
    healthy = model.lm_head.forward

    def fail(hidden: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory")

    model.lm_head.forward = fail
    results = await asyncio.gather(
        *(ask(engine, [i], Sampling(max_tokens=5), session=str(i)) for i in range(3)),
        return_exceptions=True,
    )
    assert all(isinstance(error, EngineError) for error in results)
    assert "out of memory" in str(results[0])
    model.lm_head.forward = healthy
    done = await ask(engine, [1], Sampling(max_tokens=5), session="after")
    assert len(done.token_ids) == 5


async def test_deterministic_results_are_bit_identical_in_any_company(model):
    sampling = Sampling(max_tokens=30, seed=5)
    engine = TransformersEngine(model, deterministic=True)
    alone = await ask(engine, [7, 8, 9], sampling, session="a")
    mates = [Sampling(max_tokens=8, seed=i) for i in range(5)]
    done = await generate_all(engine, [*make_prompts(5), [7, 8, 9]], [*mates, sampling])
    assert done[-1] == alone
    await engine.close()


async def test_forward_passes_run_off_the_event_loop(model, engine):
    threads = []
    handle = model.register_forward_pre_hook(lambda *_: threads.append(threading.get_ident()))
    await ask(engine, [1], Sampling(max_tokens=3), session="a")
    handle.remove()
    assert len(set(threads)) == 1
    assert threading.get_ident() not in threads


async def test_generation_leaves_modes_and_gradients_as_they_were(model, engine):
    model.train()
    model.lm_head.eval()
    modes = [module.training for module in model.modules()]
    await ask(engine, [1, 2], Sampling(max_tokens=5), session="a")
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.requires_grad for parameter in model.parameters())
    model(torch.tensor([[1, 2]])).logits.sum().backward()


async def test_the_trainers_own_module_is_not_copied(model, engine):
    before = {name: p._version for name, p in model.named_parameters()}
    await engine.update_weights(published(model, 4))
    assert {name: p._version for name, p in model.named_parameters()} == before
    done = await ask(engine, [1], Sampling(max_tokens=1), session="a")
    assert set(done.versions) == {4}


async def test_weights_of_another_module_are_copied(model, engine):
    torch.manual_seed(1)
    other = type(model)(model.config).eval()
    await engine.update_weights(published(other, 1))
    done = await ask(engine, [1, 2], Sampling(max_tokens=9, seed=0), session="a")
    expected = full_logprobs(other, [1, 2], done)
    assert torch.allclose(torch.tensor(done.logprobs), expected, atol=1e-4)


class Tensors(torch.nn.Module):
    """A module whose parameters are pairs of the test's choice."""

    def __init__(self, pairs):
        super().__init__()
        self.pairs = pairs

    def named_parameters(self, *args, **kwargs):
        yield from self.pairs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pairs: pairs[1:], "1 parameters were not sent: model.embed_tokens.weight"),
        (lambda pairs: [("module.x", pairs[0][1]), *pairs], "'module.x' is not a parameter"),
        (lambda pairs: [(pairs[0][0], pairs[0][1][:3])], r"shape \(61, 32\), got \(3, 32\)"),
    ],
)
async def test_weights_that_do_not_match_are_named(model, engine, change, message):
    pairs = [(name, p.detach()) for name, p in model.named_parameters()]
    with pytest.raises(EngineError, match=message):
        await engine.update_weights(published(Tensors(change(pairs)), 1))
    assert engine.policy_version == 0


async def test_weights_are_refused_while_requests_are_in_flight(model, engine):
    task = asyncio.create_task(ask(engine, [1], Sampling(max_tokens=80), session="a"))
    await asyncio.sleep(0)
    with pytest.raises(EngineError, match="1 requests are in flight"):
        await engine.update_weights(published(model, 1))
    await task


async def test_close_fails_what_is_in_flight_and_refuses_more(model):
    engine = TransformersEngine(model)
    task = asyncio.create_task(ask(engine, [1], Sampling(max_tokens=80), session="a"))
    await asyncio.sleep(0)
    await engine.close()
    with pytest.raises(EngineError, match="closed while"):
        await task
    with pytest.raises(EngineError, match="is closed"):
        await ask(engine, [1], Sampling(max_tokens=1), session="a")
    await engine.close()


def test_an_engine_serves_one_event_loop_after_another():
    engine = TransformersEngine(build_model("llama"))
    sampling = Sampling(max_tokens=4, seed=0)
    first = asyncio.run(ask(engine, [1], sampling, session="a"))
    second = asyncio.run(ask(engine, [1], sampling, session="b"))
    assert first == second
    asyncio.run(engine.close())
