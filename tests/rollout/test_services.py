import asyncio

from agentrl.config.sandbox import LocalSandboxConfig
from agentrl.contracts.sandbox import RunRequest
from agentrl.rollout.services import RunServices


async def test_one_sandbox_is_started_and_its_programs_stay_counted() -> None:
    services = RunServices(LocalSandboxConfig(unsafe=True, workers=1))
    assert services.isolation is None
    try:
        first, second = await asyncio.gather(services.sandbox(), services.sandbox())
        assert first is second
        result = await first.run(RunRequest(code="print(6 * 7)"))
        assert result.stdout == "42\n"
        assert services.executions == 1
    finally:
        await services.close()
    await services.close()
    assert services.executions == 1
    assert services.isolation is None


async def test_nothing_is_started_that_nobody_asked_for() -> None:
    services = RunServices(LocalSandboxConfig(unsafe=False))
    await services.close()
    assert services.executions == 0
