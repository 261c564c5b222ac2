"""The pool's promises beyond one execution: replacement, retries, recycling, fairness, ends."""

import asyncio
from collections.abc import Callable

import pytest

from agentrl.config.sandbox import SandboxConfig
from agentrl.contracts.sandbox import RunRequest, RunStatus, Sandbox
from agentrl.errors import NotReadyError, SandboxError, ToolError
from agentrl.sandbox.factory import make_pool
from agentrl.sandbox.queue import QueueFullError

ConfigFor = Callable[..., SandboxConfig]
SLOW = RunRequest(code="import time; time.sleep(0.4); print('slow')")


async def test_a_worker_lost_in_mid_run_costs_one_retry(
    backend: str, config_for: ConfigFor
) -> None:
    async with make_pool(config_for(backend)) as pool:
        runs = [asyncio.create_task(pool.run(SLOW)) for _ in range(2)]
        await asyncio.sleep(0.15)
        await next(iter(pool._workers)).guest.end()
        results = await asyncio.gather(*runs)
        assert [r.stdout for r in results] == ["slow\n"] * 2
        assert sorted(r.attempts for r in results) == [1, 2]
        assert pool.stats().replaced == 1


async def test_losing_two_workers_is_the_sandboxs_error(
    backend: str, config_for: ConfigFor
) -> None:
    async with make_pool(config_for(backend, workers=1)) as pool:
        run = asyncio.create_task(pool.run(SLOW))
        for _ in range(2):
            while not (pool._workers and any(w.executions for w in pool._workers)):
                await asyncio.sleep(0.01)
            worker = next(w for w in pool._workers if w.executions)
            await asyncio.sleep(0.1)
            await worker.guest.end()
            while worker in pool._workers:
                await asyncio.sleep(0.01)
        with pytest.raises(SandboxError, match="lost"):
            await run


async def test_workers_are_recycled_after_their_number_of_runs(
    backend: str, config_for: ConfigFor
) -> None:
    async with make_pool(config_for(backend, workers=1, recycle_after=3)) as pool:
        results = [await pool.run(RunRequest(code="print(1)")) for _ in range(8)]
        assert all(r.ok and r.attempts == 1 for r in results)
        assert len({r.sandbox_id for r in results}) == 3


async def test_a_cancelled_caller_ends_the_program_and_frees_the_slot(
    backend: str, config_for: ConfigFor
) -> None:
    async with make_pool(config_for(backend, workers=1)) as pool:
        run = asyncio.create_task(
            pool.run(RunRequest(code="import time; time.sleep(60)", run_timeout_s=60))
        )
        await asyncio.sleep(0.2)
        run.cancel()
        async with asyncio.timeout(5):
            assert (await pool.run(RunRequest(code="print(1)"))).stdout == "1\n"


async def test_several_slots_in_one_container_are_apart(
    backend: str, config_for: ConfigFor
) -> None:
    code = "import os, time; open('mine', 'w'); time.sleep(0.3); print(os.getuid(), os.listdir())"
    async with make_pool(config_for(backend, workers=1, slots=3)) as pool:
        results = await asyncio.gather(*[pool.run(RunRequest(code=code)) for _ in range(3)])
        assert all(r.stdout.endswith("['mine']\n") for r in results), results
        assert len({r.sandbox_id for r in results}) == 1
        assert len({r.stdout for r in results}) == 3


async def test_a_bomb_in_one_slot_spares_its_neighbour(backend: str, config_for: ConfigFor) -> None:
    bomb = RunRequest(code="import os\nwhile True: os.fork()", run_timeout_s=1)
    honest = RunRequest(code="import os, time\nfor _ in range(20):\n  time.sleep(0.02)\n"
                        "  if os.fork() == 0: os._exit(0)\n  os.wait()\nprint('fine')")  # fmt: skip
    async with make_pool(config_for(backend, workers=1, slots=2)) as pool:
        bombed, fine = await asyncio.gather(pool.run(bomb), pool.run(honest))
        assert bombed.status is RunStatus.PROCESS_LIMIT
        assert (fine.stdout, fine.attempts) == ("fine\n", 1)


async def test_the_queue_is_bounded_and_nothing_is_lost(
    backend: str, config_for: ConfigFor
) -> None:
    async with make_pool(config_for(backend, workers=1, max_queue=3)) as pool:
        runs = [pool.run(RunRequest(code=f"print({n})")) for n in range(6)]
        results = await asyncio.gather(*runs, return_exceptions=True)
        assert [getattr(r, "stdout", None) for r in results[:4]] == ["0\n", "1\n", "2\n", "3\n"]
        assert all(isinstance(r, QueueFullError) for r in results[4:])


async def test_preloaded_modules_are_there_and_unused_ones_are_refused(
    backend: str, config_for: ConfigFor
) -> None:
    async with make_pool(config_for(backend, workers=1, preload=["decimal"])) as pool:
        code = "import sys; print('decimal' in sys.modules, 'fractions' in sys.modules)"
        assert (await pool.run(RunRequest(code=code))).stdout == "True False\n"
    with pytest.raises(NotReadyError, match="preload 'no_such_module'"):
        await make_pool(config_for(backend, workers=1, preload=["no_such_module"])).start()


async def test_a_configured_language_runs_and_a_missing_one_is_named(
    backend: str, config_for: ConfigFor
) -> None:
    languages = {
        "lines": {"file": "main.txt", "run": ["head", "-n", "1", "{file}"]},
        "fortran": {"file": "main.f90", "run": ["no-such-compiler", "{file}"]},
    }
    async with make_pool(config_for(backend, workers=1, languages=languages)) as pool:
        assert (await pool.run(RunRequest(code="a\nb", language="lines"))).stdout == "a\n"
        with pytest.raises(ToolError, match="no-such-compiler"):
            await pool.run(RunRequest(code="", language="fortran"))
        assert (await pool.run(RunRequest(code="print(1)"))).ok


async def test_close_fails_waiting_requests_and_may_be_repeated(
    backend: str, config_for: ConfigFor
) -> None:
    pool = make_pool(config_for(backend, workers=1))
    await pool.start()
    runs = [asyncio.create_task(pool.run(SLOW)) for _ in range(3)]
    await asyncio.sleep(0.1)
    await pool.close()
    await pool.close()
    results = await asyncio.gather(*runs, return_exceptions=True)
    assert all(isinstance(r, SandboxError) for r in results)


async def test_idle_sessions_end_and_free_their_place(backend: str, config_for: ConfigFor) -> None:
    config = config_for(backend, workers=1, session_idle_s=0.3, max_sessions=1)
    async with make_pool(config) as pool:
        session = await pool.open_session()
        with pytest.raises(SandboxError, match="max_sessions"):
            await pool.open_session()
        await asyncio.sleep(0.8)
        with pytest.raises(ToolError, match="ended"):
            await session.run_cell("1")
        second = await pool.open_session()
        await session.close()
        assert (await second.run_cell("2")).stdout == "2\n"
        await second.close()


async def test_a_guest_too_old_is_replaced(backend: str, config_for: ConfigFor) -> None:
    async with make_pool(config_for(backend, workers=1, expire_s=0.5)) as pool:
        first: Sandbox = pool
        ids = set()
        for _ in range(3):
            ids.add((await first.run(RunRequest(code="print(1)"))).sandbox_id)
            await asyncio.sleep(0.4)
        assert len(ids) >= 2
