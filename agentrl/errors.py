"""The error tree, and the one place that classifies what a plugin raises.

Two families. *Run errors* stop the program and carry its exit code: `ConfigError` (2),
`NotReadyError` (3), `RunError` (1). *Rollout errors* are data: a tool call or an episode that
fails is recorded on its trajectory and never cancels its siblings. Plugin authors raise
`ToolError` for the model's mistakes and `InfraError` for their own backend's; any other
exception that leaves a plugin is attributed by `boundary()`, or by `loading()` before the run.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class AgentRLError(Exception):
    """Base of every error that agentrl raises on purpose."""

    exit_code = 1


class ConfigError(AgentRLError):
    """A configuration, file or argument is wrong; nothing has been started."""

    exit_code = 2


class NotReadyError(AgentRLError):
    """The environment lacks something the run needs (a sandbox, a package, a device, disk)."""

    exit_code = 3


class RunError(AgentRLError):
    """A run that had started cannot go on."""


class TemplateError(ConfigError):
    """A chat template cannot be used at all: no way of showing it a dialogue works."""


class RolloutError(AgentRLError):
    """Base of failures that are recorded on a trajectory instead of stopping the run."""


class ToolError(RolloutError):
    """The model's mistake: the message is shown to the model as the tool's observation."""


class ToolTimeoutError(RolloutError):
    """A plugin call passed its deadline."""


class InfraError(RolloutError):
    """A backend failed and the model is not to blame. Retried before the episode is given up."""


class SandboxError(InfraError):
    """The sandbox itself failed; says nothing about the program it was to run."""


class EngineError(InfraError):
    """The inference engine failed to complete a request."""


class RenderError(RolloutError):
    """A chat template refuses the messages of one dialogue."""


class PluginError(RolloutError):
    """A plugin raised something unexpected: a bug of the plugin, not retried."""


@contextmanager
def boundary(what: str) -> Iterator[None]:
    """Run plugin code and attribute whatever escapes it to one type of the rollout family.

    Typed rollout errors and cancellation pass unchanged. `TimeoutError` becomes
    `ToolTimeoutError`, an `OSError` (connection refused, disk full, ...) becomes `InfraError`,
    and anything else becomes `PluginError`: a cancellation too that nobody outside asked for.
    `what` opens the message.

    Raises:
        RolloutError: always of a subclass, with the original exception as its cause: message,
            type and traceback of both are what `Failure.of` keeps.
    """
    try:
        yield
    except RolloutError:
        raise
    except TimeoutError as error:
        raise ToolTimeoutError(f"{what} timed out") from error
    except OSError as error:
        raise InfraError(f"{what}: {_shown(error)}") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise PluginError(f"{what}: CancelledError: it cancelled what it waited for") from error
    except Exception as error:
        raise PluginError(f"{what}: {_shown(error)}") from error


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Import or construct a plugin and attribute whatever escapes it to its configuration.

    Raises:
        AgentRLError: a run error as the plugin raised it, or a `ConfigError` for anything else.
    """
    try:
        yield
    except AgentRLError:
        raise
    except Exception as error:
        raise ConfigError(f"{what}: {_shown(error)}") from error


@contextmanager
def noted(note: str) -> Iterator[None]:
    """Add a note to whatever is raised within; it stays what it is."""
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise


def _shown(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # its own __str__ fails
        return f"{type(error).__name__} (it cannot be shown as text)"
