import asyncio

import pytest

from agentrl.errors import (
    ConfigError,
    EngineError,
    InfraError,
    NotReadyError,
    PluginError,
    RolloutError,
    RunError,
    SandboxError,
    TemplateError,
    ToolError,
    ToolTimeoutError,
    boundary,
)


@pytest.mark.parametrize(
    ("raised", "becomes"),
    [
        (TimeoutError(), ToolTimeoutError),
        (ConnectionRefusedError("refused"), InfraError),
        (OSError(28, "No space left on device"), InfraError),
        (KeyError("x"), PluginError),
        (ValueError("x"), PluginError),
        (RecursionError("deep"), PluginError),
        (StopIteration(), PluginError),
        (ExceptionGroup("two", [InfraError("a"), KeyError("b")]), PluginError),
        (ConfigError("x"), PluginError),
    ],
)
def test_what_escapes_a_plugin_is_attributed(
    raised: Exception, becomes: type[RolloutError]
) -> None:
    with pytest.raises(RolloutError, match="tool 'x'") as caught, boundary("tool 'x'"):
        raise raised
    assert type(caught.value) is becomes
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize(
    "kind",
    [ToolError, ToolTimeoutError, InfraError, SandboxError, EngineError, PluginError],
)
def test_typed_rollout_errors_pass_unchanged(kind: type[RolloutError]) -> None:
    error = kind("as it was")
    with pytest.raises(kind) as caught, boundary("tool"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_what_stops_the_program_passes(error: BaseException) -> None:
    with pytest.raises(type(error)), boundary("tool"):
        raise error


async def test_a_cancellation_from_outside_passes() -> None:
    async def plugin() -> None:
        with boundary("tool"):
            await asyncio.Event().wait()

    task = asyncio.create_task(plugin())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_cancellation_that_a_plugin_made_itself_is_its_bug() -> None:
    async def plugin() -> None:
        inner = asyncio.ensure_future(asyncio.Event().wait())
        inner.cancel()
        await inner

    with pytest.raises(PluginError, match="tool: CancelledError"), boundary("tool"):
        await plugin()


def test_every_run_error_has_its_exit_code() -> None:
    codes = {kind: kind.exit_code for kind in (ConfigError, TemplateError, NotReadyError, RunError)}
    assert codes == {ConfigError: 2, TemplateError: 2, NotReadyError: 3, RunError: 1}
