import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from engines_support import ask, published
from tests_support import Adder, make_rollout, roll

from agentrl.config.engine import HttpEngineConfig
from agentrl.contracts.engine import Sampling
from agentrl.engines.http.chat import ChatEngine
from agentrl.engines.http.engine import HttpEngine
from agentrl.errors import ConfigError, EngineError, NotReadyError
from agentrl.rollout.actor import ChatActor
from agentrl.templates.render import Renderer

SERVER = Path(__file__).parents[2] / "support" / "fake_server.py"
SAMPLING = Sampling(max_tokens=3)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process that can be killed and started again at its address."""

    def __init__(self, make: str, delay_s: float) -> None:
        self.port, self.make, self.delay_s = free_port(), make, delay_s
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = [str(self.port), self.make, str(self.delay_s)]
        self.process = subprocess.Popen([sys.executable, str(SERVER), *words])
        for _ in range(200):
            try:
                httpx.get(self.url + "/health").raise_for_status()
                return
            except httpx.HTTPError:
                time.sleep(0.05)
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def ask(self, path: str, **body: Any) -> Any:
        return httpx.post(self.url + path, json=body).json()


@pytest.fixture
def servers() -> Iterator[Callable[..., list[Server]]]:
    started: list[Server] = []

    def make(count: int, api: str = "vllm", delay_s: float = 0.0) -> list[Server]:
        new = []
        for _ in range(count):  # one by one: a port that is not taken yet may be given twice
            new.append(Server(api, delay_s))
            started.append(new[-1])
            new[-1].start()
        return new

    yield make
    for server in started:
        server.kill()


@asynccontextmanager
async def opened(servers: list[Server], **options: Any) -> AsyncIterator[HttpEngine]:
    urls = [server.url for server in servers]
    config = HttpEngineConfig(
        type="http", urls=urls, **{"api": servers[0].make, "health_every_s": 0.1, **options}
    )
    engine = HttpEngine(config)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


@pytest.mark.parametrize("api", ["vllm", "sglang"])
async def test_tokens_scores_and_versions_come_back(servers: Any, api: str) -> None:
    async with opened(servers(1, api)) as engine:
        await engine.update_weights(published(torch.nn.Linear(2, 2), 7))
        done = await ask(engine, [1, 2], SAMPLING, session="a")
        assert (done.token_ids, done.logprobs) == ([7] * 3, [-0.5] * 3)
        assert done.versions == [7] * 3
        assert done.finish_reason == "length"
        assert await engine.score([4, 5, 6]) == [[-8.5, -8.5]]
        assert engine.drain_metrics()["engine/replicas"] == 1


async def test_a_session_stays_on_its_replica(servers: Any) -> None:
    group = servers(3)
    async with opened(group) as engine:
        for _ in range(6):
            await ask(engine, [1], SAMPLING, session="always")
    assert sorted(server.ask("/state")["served"] for server in group) == [0, 0, 6]


async def test_a_replica_killed_in_mid_request_loses_no_episode(servers: Any) -> None:
    group = servers(3, delay_s=0.5)
    async with opened(group, health_every_s=60) as engine:
        running = asyncio.gather(*(ask(engine, [1], SAMPLING, session=f"s{i}") for i in range(30)))
        await asyncio.sleep(0.25)
        group[1].kill()
        assert [len(done.token_ids) for done in await running] == [3] * 30
        assert engine.drain_metrics()["engine/replicas"] == 2


async def test_a_replica_that_comes_back_gets_the_weights_it_missed(servers: Any) -> None:
    group = servers(2)
    async with opened(group) as engine:
        await engine.update_weights(published(torch.nn.Linear(2, 2), 1))
        group[0].kill()
        await engine.update_weights(published(torch.nn.Linear(2, 2), 2))
        group[0].start()
        async with asyncio.timeout(10):
            while engine.drain_metrics()["engine/replicas"] < 2:
                await asyncio.sleep(0.05)
        done = await asyncio.gather(
            *(ask(engine, [1], SAMPLING, session=f"s{i}") for i in range(20))
        )
        assert {token for one in done for token in one.token_ids} == {2}
        assert group[0].ask("/state")["served"] > 0


async def test_a_replica_that_restarts_between_updates_gets_the_weights_again(
    servers: Any,
) -> None:
    [server] = servers(1)
    async with opened([server]) as engine:
        await engine.update_weights(published(torch.nn.Linear(2, 2), 1))
        server.kill()
        asking = asyncio.create_task(ask(engine, [1], SAMPLING, session="a"))
        await asyncio.sleep(0.3)
        server.start()
        assert (await asking).token_ids == [1, 1, 1]


async def test_a_replica_with_other_weights_shows_in_the_scores(
    servers: Any, tmp_path: Path
) -> None:
    group = servers(2)
    stale = tmp_path / "weights-5-0"
    stale.mkdir()
    (stale / "model.safetensors").touch()
    async with opened(group) as engine:
        await engine.update_weights(published(torch.nn.Linear(2, 2), 7))
        group[0].ask("/pause")
        group[0].ask("/collective_rpc", args=[str(stale)])
        assert await engine.score([4, 5]) == [[-6.5], [-8.5]]


@pytest.mark.parametrize("status", [429, 500])
async def test_a_server_that_refuses_is_asked_again_and_kept(servers: Any, status: int) -> None:
    group = servers(1)
    group[0].ask("/refuse", times=2, status=status)
    async with opened(group, health_every_s=60) as engine:
        assert len((await ask(engine, [1], SAMPLING, session="a")).token_ids) == 3
        assert engine.drain_metrics()["engine/replicas"] == 1


async def test_what_a_frozen_replica_was_asked_goes_to_another(
    servers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentrl.engines.http.serving.HEALTH_TIMEOUT_S", 0.3)
    group = servers(2, delay_s=0.3)
    async with opened(group) as engine:
        running = asyncio.gather(*(ask(engine, [1], SAMPLING, session=f"s{i}") for i in range(10)))
        await asyncio.sleep(0.1)
        group[0].process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(10):
            assert [len(done.token_ids) for done in await running] == [3] * 10


async def test_an_answer_of_another_shape_is_a_clear_error(servers: Any) -> None:
    config = HttpEngineConfig(type="http", urls=[servers(1, "strange")[0].url])
    engine = HttpEngine(config)
    await engine.start()
    try:
        with pytest.raises(EngineError, match=r"not what engine\.api promises"):
            await ask(engine, [1], SAMPLING, session="a")
    finally:
        await engine.close()


async def test_a_hung_server_hits_the_deadline(servers: Any) -> None:
    group = servers(1)
    group[0].ask("/hang")
    async with opened(group, request_timeout_s=0.5) as engine:
        with pytest.raises(EngineError, match=r"no answer within engine\.request_timeout_s=0\.5"):
            await ask(engine, [1], SAMPLING, session="a")


async def test_an_update_does_not_wait_for_a_hung_request_for_ever(servers: Any) -> None:
    group = servers(1)
    async with opened(group, update_timeout_s=0.5, request_timeout_s=3) as engine:
        group[0].ask("/hang")
        asking = asyncio.create_task(ask(engine, [1], SAMPLING, session="a"))
        await asyncio.sleep(0.1)
        with pytest.raises(EngineError, match="weight update to version 1"):
            await engine.update_weights(published(torch.nn.Linear(2, 2), 1))
        with pytest.raises(EngineError, match="no answer within"):
            await asking


@pytest.mark.parametrize("on_update", ["wait", "abort"])
async def test_an_update_keeps_each_answer_to_one_version(servers: Any, on_update: str) -> None:
    group = servers(2, delay_s=0.05)
    async with opened(group, on_update=on_update) as engine:
        await engine.update_weights(published(torch.nn.Linear(2, 2), 1))

        async def pairs_of(i: int) -> list[tuple[int, int]]:
            done = await ask(engine, [1], SAMPLING, session=f"s{i}")
            return list(zip(done.token_ids, done.versions, strict=True))

        for server in group:
            server.ask("/refuse", times=3)
        running = asyncio.gather(*(pairs_of(i) for i in range(20)))
        await asyncio.sleep(0.02)
        await engine.update_weights(published(torch.nn.Linear(2, 2), 2))
        later = await asyncio.gather(*(pairs_of(i) for i in range(20)))
        assert {pair for one in later for pair in one} == {(2, 2)}
        assert {pair for one in await running for pair in one} <= {(1, 1), (2, 2)}


async def test_a_server_that_takes_no_weights_says_how_to_start_it(servers: Any) -> None:
    async with opened(servers(1, "strange"), api="vllm") as engine:
        with pytest.raises(EngineError, match=r"/pause\S*: 404 .*VLLM_SERVER_DEV_MODE=1"):
            await engine.update_weights(published(torch.nn.Linear(2, 2), 1))


async def test_nobody_there_is_not_ready(servers: Any) -> None:
    engine = HttpEngine(HttpEngineConfig(type="http", urls=[f"http://127.0.0.1:{free_port()}"]))
    with pytest.raises(NotReadyError, match=r"engine\.urls: no server answers"):
        await engine.start()


async def test_a_missing_key_is_named() -> None:
    config = HttpEngineConfig(type="http", urls=["http://127.0.0.1:1"], api_key_env="NO_SUCH_KEY")
    with pytest.raises(ConfigError, match="NO_SUCH_KEY is not set"):
        await HttpEngine(config).start()


async def test_a_chat_endpoint_plays_a_dialogue_with_tools(
    servers: Any, renderer: Renderer
) -> None:
    urls = [server.url for server in servers(1)]
    engine = ChatEngine(HttpEngineConfig(type="http", urls=urls, api="openai_chat"))
    await engine.start()
    actor = ChatActor(backend=engine, renderer=renderer)
    try:
        trajectory = await roll(make_rollout(renderer, [], Adder(), actor=actor))
    finally:
        await engine.close()
    assert trajectory.error is None
    assert [r.call.arguments for r in trajectory.tool_records] == [{"a": 2, "b": 3}]
    assert trajectory.answer == "it said 5"
    assert trajectory.termination == "answered"


async def test_chat_endpoints_come_and_go(servers: Any, renderer: Renderer) -> None:
    first, second = servers(2)
    engine = ChatEngine(HttpEngineConfig(type="http", urls=[first.url], api="openai_chat"))
    await engine.start()
    try:
        await engine.add(second.url)
        assert engine.drain_metrics()["engine/replicas"] == 2
        await engine.remove(first.url)
        first.kill()
        actor = ChatActor(backend=engine, renderer=renderer)
        trajectory = await roll(make_rollout(renderer, [], Adder(), actor=actor))
        assert trajectory.answer == "it said 5"
        with pytest.raises(ConfigError, match="is the last server"):
            await engine.remove(second.url)
    finally:
        await engine.close()


async def test_a_newcomer_gets_the_current_weights_before_it_serves(servers: Any) -> None:
    first, second = servers(2)
    async with opened([first]) as engine:
        await engine.update_weights(published(torch.nn.Linear(2, 2), 4))
        await engine.add(second.url + "/")
        assert second.ask("/state")["weights"] == 4
        done = await asyncio.gather(
            *(ask(engine, [1], SAMPLING, session=f"s{i}") for i in range(8))
        )
        assert {token for one in done for token in one.token_ids} == {4}
        assert [server.ask("/state")["served"] for server in (first, second)] == [4, 4]
        with pytest.raises(ConfigError, match="is in use already; remove it first"):
            await engine.add(second.url)


async def test_a_removed_server_finishes_what_it_was_asked_and_gets_nothing_more(
    servers: Any,
) -> None:
    group = servers(2, delay_s=0.5)
    async with opened(group) as engine:
        running = asyncio.gather(*(ask(engine, [1], SAMPLING, session=f"s{i}") for i in range(6)))
        await asyncio.sleep(0.2)
        await engine.remove(group[0].url)
        assert group[0].ask("/state")["served"] == 3
        assert [len(done.token_ids) for done in await running] == [3] * 6
        await asyncio.gather(*(ask(engine, [1], SAMPLING, session=f"s{i}") for i in range(6)))
        assert [server.ask("/state")["served"] for server in group] == [3, 9]
        with pytest.raises(ConfigError, match="is the last server; add another one first"):
            await engine.remove(group[1].url)
        with pytest.raises(ConfigError, match="expected one of the addresses in use"):
            await engine.remove(group[0].url)


async def test_a_server_that_does_not_answer_or_takes_no_weights_is_not_added(
    servers: Any,
) -> None:
    async with opened(servers(1)) as engine:
        await engine.update_weights(published(torch.nn.Linear(2, 2), 1))
        with pytest.raises(NotReadyError, match="expected a server to add"):
            await engine.add(f"http://127.0.0.1:{free_port()}")
        with pytest.raises(NotReadyError, match="/pause"):
            await engine.add(servers(1, "strange")[0].url)
        assert len((await ask(engine, [1], SAMPLING, session="a")).token_ids) == 3
        assert engine.drain_metrics()["engine/replicas"] == 1


async def test_a_server_added_during_an_update_serves_the_new_weights(servers: Any) -> None:
    first, second = servers(2, delay_s=0.3)
    async with opened([first]) as engine:
        await engine.update_weights(published(torch.nn.Linear(2, 2), 1))
        running = asyncio.create_task(ask(engine, [1], SAMPLING, session="a"))
        await asyncio.sleep(0.1)
        updating = asyncio.create_task(engine.update_weights(published(torch.nn.Linear(2, 2), 2)))
        await asyncio.sleep(0.05)
        await engine.add(second.url)
        assert second.ask("/state")["weights"] == 2
        await updating
        assert (await running).versions == [1, 1, 1]
