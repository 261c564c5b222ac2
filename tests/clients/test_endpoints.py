import asyncio
from collections import Counter

import pytest

from agentrl.clients.endpoints import Endpoint, Endpoints
from agentrl.errors import ConfigError


def endpoints(names: str) -> Endpoints[Endpoint]:
    return Endpoints([Endpoint(f"http://{name}/") for name in names])


async def test_a_session_stays_where_it_was_and_a_new_one_goes_to_the_least_loaded() -> None:
    pool = endpoints("ab")
    first, second = pool.all
    home = await pool.choose("s")
    assert home is first
    with pool.hold(first), pool.hold(first), pool.hold(second):
        assert await pool.choose("s") is first
        assert await pool.choose("t") is second
    assert (first.load, second.load) == (0, 0)


async def test_a_lost_address_moves_only_its_own_sessions() -> None:
    pool = endpoints("abcd")
    sessions = [f"session {i}" for i in range(400)]
    before = {session: (await pool.choose(session)).url for session in sessions}
    assert set(Counter(before.values()).values()) == {100}
    pool.down(pool.all[2], "gone")
    for session in sessions:
        now = (await pool.choose(session)).url
        assert now == before[session] or before[session] == "http://c"
        assert now != "http://c"
    assert pool.troubles() == "http://c: gone"


async def test_a_request_waits_until_an_address_is_in_service() -> None:
    pool = endpoints("a")
    pool.down(pool.all[0], "gone")
    choosing = asyncio.create_task(pool.choose("s"))
    await asyncio.sleep(0)
    assert not choosing.done()
    pool.up(pool.all[0])
    assert await choosing is pool.all[0]


async def test_an_address_comes_and_goes() -> None:
    pool = endpoints("a")
    newcomer = Endpoint("http://b")
    pool.add(newcomer)
    assert pool.serving == [pool.all[0]]
    pool.up(newcomer)
    assert (await pool.choose("s"), await pool.choose("t")) == (pool.all[0], newcomer)
    pool.remove(newcomer)
    pool.up(newcomer)
    assert await pool.choose("t") is pool.all[0]
    with pytest.raises(ConfigError, match=r"http://b: expected one .* in use \(http://a\)"):
        pool.find("http://b")
    with pytest.raises(ConfigError, match="http://a is in use already; remove it first"):
        pool.add(Endpoint("http://a/"))


async def test_forgotten_sessions_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrl.clients.endpoints.REMEMBERED_SESSIONS", 2)
    pool = endpoints("ab")
    for session in "abcdef":
        await pool.choose(session)
    assert sum(pool._num_sessions.values()) == len(pool._homes) == 2


def test_when_all_are_out_the_first_to_come_back_is_asked() -> None:
    pool = endpoints("ab")
    pool.down(pool.all[0], "gone", for_s=60)
    pool.down(pool.all[1], "gone", for_s=30)
    assert pool.nearest() is pool.all[1]
