import asyncio
import copy
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from engines_support import Written, ask, published
from vllm_support import (
    IMPORT_WARNINGS,
    disturb,
    largest_gap,
    reference_logprobs,
    require_vllm,
    tiny_model,
)

from agentrl.config.engine import VllmEngineConfig
from agentrl.contracts.engine import Sampling
from agentrl.engines.vllm.engine import VllmEngine
from agentrl.engines.vllm.launch import ModelSpec
from agentrl.engines.vllm.transfer import send_weights
from agentrl.engines.vllm.versions import engine_processes
from agentrl.engines.weights import LiveWeights
from agentrl.errors import ConfigError, EngineError, NotReadyError

require_vllm()
# Starting an engine takes half a minute, so the tests share one, and one event loop.
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    *IMPORT_WARNINGS,
]

LONGEST = 512
PROMPT = list(range(4, 84))


class Live:
    """An engine, the weights it has, and what it was configured with."""

    def __init__(self, log_file: Path) -> None:
        self.model: Any = tiny_model()
        self.log_file = log_file
        self.config = VllmEngineConfig(type="vllm", kv_cache_gb=0.25)
        described = copy.deepcopy(self.model.config)
        described.architectures = ["LlamaForCausalLM"]
        spec = ModelSpec(config=described, dtype="float32", device="cpu", max_tokens=LONGEST)
        self.engine = VllmEngine(spec, self.config, log_file=log_file)
        self.weights = LiveWeights(self.model)

    def configure(self, **changes: Any) -> None:
        """Change what the engine reads at every request or update."""
        self.engine._config = self.config.model_copy(update=changes)

    async def sync(self, version: int) -> None:
        self.weights.version = version
        await self.engine.update_weights(self.weights)

    @property
    def llm(self) -> Any:
        return self.engine._running.llm

    def restarts(self) -> float:
        return self.engine.drain_metrics()["engine/restarts"]

    async def parity(self) -> float:
        [scores] = await self.engine.score(PROMPT)
        return largest_gap(scores, reference_logprobs(self.model, PROMPT))

    def send(self, number: signal.Signals) -> None:
        os.kill(engine_processes(self.llm)[0].pid, number)

    async def long_requests(self, count: int = 4) -> list[Written]:
        return await asyncio.gather(*(self.long_request(i) for i in range(count)))

    async def in_flight(self, count: int) -> None:
        """Wait until so many requests are being worked on."""
        async with asyncio.timeout(60):
            while self.llm.output_processor.get_num_unfinished_requests() < count:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)

    async def long_request(self, member: int) -> Written:
        sampling = Sampling(max_tokens=300, seed=member)
        return await ask(self.engine, PROMPT, sampling, session=f"long-{member}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    live = Live(tmp_path_factory.mktemp("vllm") / "vllm.log")
    await live.engine.start()
    await live.sync(1)
    yield live
    await live.engine.close()


@pytest.fixture(autouse=True)
def as_configured(live: Live) -> None:
    live.configure()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
async def test_logprobs_are_those_of_the_distribution_that_was_sampled(
    live: Live, temperature: float
) -> None:
    sampling = Sampling(max_tokens=40, temperature=temperature, seed=5)
    done = await ask(live.engine, PROMPT, sampling, session="a")
    whole = reference_logprobs(live.model, PROMPT + done.token_ids, temperature)
    assert largest_gap(done.logprobs, whole[len(PROMPT) - 1 :]) < 1e-3
    assert len(done.token_ids) == 40
    assert done.finish_reason == "length"


async def test_a_score_is_the_trainers(live: Live) -> None:
    assert await live.parity() < 1e-3


async def test_long_prompts_prefilled_in_pieces_are_no_trouble_to_seeded_requests(
    live: Live,
) -> None:
    sampling = Sampling(max_tokens=3, seed=4)
    prompts = [[5 + i % 200] * 480 for i in range(60)]
    done = await asyncio.gather(
        *(ask(live.engine, p, sampling, session=f"p{i}") for i, p in enumerate(prompts))
    )
    assert [len(one.token_ids) for one in done] == [3] * 60
    assert live.engine.drain_metrics()["engine/restarts"] == 0


async def test_a_stop_token_ends_the_turn_and_is_part_of_it(live: Live) -> None:
    greedy = Sampling(max_tokens=20, temperature=0)
    free = await ask(live.engine, PROMPT, greedy, session="b")
    stop = free.token_ids[6]
    sampling = Sampling(max_tokens=20, temperature=0, stop_token_ids=(stop,))
    done = await ask(live.engine, PROMPT, sampling, session="b")
    assert done.token_ids == free.token_ids[: free.token_ids.index(stop) + 1]
    assert done.finish_reason == "stop"


async def test_a_second_turn_is_served_from_the_prefix_cache(live: Live) -> None:
    live.engine.drain_metrics()
    prompt = [*range(100, 200), *range(50, 110)]
    first = await ask(live.engine, prompt, Sampling(max_tokens=64, seed=2), session="c")
    longer = [*prompt, *first.token_ids, 7, 8, 9]
    await ask(live.engine, longer, Sampling(max_tokens=4, seed=3), session="c")
    assert live.engine.drain_metrics()["engine/prefix_hit_rate"] > 0.8


async def test_a_prompt_without_room_is_refused_by_name(live: Live) -> None:
    with pytest.raises(EngineError, match=f"expected 1 to {LONGEST - 1} prompt tokens, got 600"):
        await ask(live.engine, [5] * 600, Sampling(max_tokens=4), session="d")


async def test_what_vllm_says_goes_to_the_log_file(live: Live) -> None:
    assert "vllm" in live.log_file.read_text()


@pytest.mark.parametrize("on_update", ["wait", "abort", "continue"])
async def test_requests_in_flight_fare_as_on_update_says(live: Live, on_update: str) -> None:
    before = live.engine.policy_version
    live.configure(on_update=on_update)
    running = asyncio.create_task(live.long_requests())
    await live.in_flight(4)
    disturb(live.model, 0.05, seed=before)
    await live.sync(before + 1)
    for done in await running:
        assert len(done.token_ids) == len(done.versions) == len(done.logprobs) == 300
        versions = sorted(set(done.versions))
        if on_update == "continue":
            assert versions == [before, before + 1]
            assert done.versions == sorted(done.versions)
        else:
            assert versions == [before if on_update == "wait" else before + 1]
    assert await live.parity() < 1e-3


async def test_tokens_after_an_update_do_not_see_keys_of_the_old_weights(live: Live) -> None:
    live.configure(on_update="continue")
    running = asyncio.create_task(live.long_request(9))
    await live.in_flight(1)
    disturb(live.model, 0.2, seed=1)
    await live.sync(live.engine.policy_version + 1)
    done = await running
    whole = reference_logprobs(live.model, PROMPT + done.token_ids)[len(PROMPT) - 1 :]
    first_new = done.versions.index(live.engine.policy_version)
    assert first_new > 0
    assert largest_gap(done.logprobs[first_new:], whole[first_new:]) < 1e-3


async def test_a_killed_process_is_replaced_and_no_request_is_lost(live: Live) -> None:
    running = asyncio.create_task(live.long_requests())
    await live.in_flight(4)
    live.send(signal.SIGKILL)
    assert [len(done.token_ids) for done in await running] == [300] * 4
    assert live.engine.drain_metrics()["engine/restarts"] == 1
    assert await live.parity() < 1e-3


async def test_a_process_that_died_unnoticed_is_replaced_by_the_next_update(live: Live) -> None:
    live.send(signal.SIGKILL)
    await asyncio.sleep(0.5)
    disturb(live.model, 0.05, seed=2)
    await live.sync(live.engine.policy_version + 1)
    assert await live.parity() < 1e-3


async def test_a_process_that_dies_during_an_update_is_replaced_once(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed(*words: Any, **options: Any) -> int:
        monkeypatch.undo()
        live.send(signal.SIGKILL)
        return await send_weights(*words, **options)

    live.configure(on_update="continue")
    running = asyncio.create_task(live.long_requests())
    await live.in_flight(4)
    before = live.restarts()
    monkeypatch.setattr("agentrl.engines.vllm.engine.send_weights", killed)
    version = live.engine.policy_version + 1
    await live.sync(version)
    assert [set(done.versions) for done in await running] == [{version}] * 4
    assert await live.parity() < 1e-3
    assert live.restarts() == before + 1


async def test_a_hung_process_is_replaced_and_no_request_is_lost(live: Live) -> None:
    before = live.restarts()
    live.configure(hang_timeout_s=2.0)
    running = asyncio.create_task(live.long_requests())
    await live.in_flight(4)
    live.send(signal.SIGSTOP)
    assert [len(done.token_ids) for done in await running] == [300] * 4
    assert live.restarts() == before + 1


async def test_a_hung_generate_hits_its_deadline(live: Live) -> None:
    live.configure(request_timeout_s=1.0)
    live.send(signal.SIGSTOP)
    try:
        with pytest.raises(EngineError, match=r"no answer within engine\.request_timeout_s=1"):
            await live.long_request(0)
    finally:
        live.send(signal.SIGCONT)
    live.configure()
    assert len((await live.long_request(0)).token_ids) == 300


async def test_a_refused_tensor_is_named(live: Live) -> None:
    with pytest.raises(EngineError, match="weight update to version 99"):
        await live.engine.update_weights(published(live.model.model, 99))
    await live.sync(100)


async def test_with_on_death_stop_requests_fail_and_the_engine_says_why(live: Live) -> None:
    # The last test of the module: the engine stays dead.
    live.configure(on_death="stop")
    running = asyncio.create_task(live.long_request(1))
    await live.in_flight(1)
    live.send(signal.SIGKILL)
    with pytest.raises(EngineError, match=r"on_death is `stop`; see .*vllm\.log"):
        await running
    assert live.engine.failure is not None


async def test_a_start_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    spec = ModelSpec(config=tiny_model().config, dtype="float32", device="cpu", max_tokens=LONGEST)
    engine = VllmEngine(spec, VllmEngineConfig(type="vllm", start_timeout_s=3), log_file=None)
    before = set(multiprocessing.active_children())
    with pytest.raises(NotReadyError, match=r"engine\.start_timeout_s=3"):
        await engine.start()
    async with asyncio.timeout(30):
        while set(multiprocessing.active_children()) - before:
            await asyncio.sleep(0.1)


async def test_an_unknown_engine_argument_is_a_config_error(tmp_path: Path) -> None:
    described = copy.deepcopy(tiny_model().config)
    spec = ModelSpec(config=described, dtype="float32", device="cpu", max_tokens=LONGEST)
    config = VllmEngineConfig(type="vllm", engine_args={"max_modle_len": 3})
    with pytest.raises(ConfigError, match=r"engine\.engine_args: .*max_modle_len"):
        await VllmEngine(spec, config, log_file=tmp_path / "log").start()
