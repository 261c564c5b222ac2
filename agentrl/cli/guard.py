"""Errors as users see them: one line that says what to do, and an exit code that means something.

0 ok, 1 failed, 2 usage or configuration, 3 environment not ready, 130 interrupted.
"""

import errno
import functools
import os
from collections.abc import Callable
from typing import ParamSpec

import typer

from agentrl.errors import AgentRLError, ConfigError, NotReadyError

P = ParamSpec("P")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNUSABLE = (
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)
_EXTRAS = {
    "accelerate": "train",
    "datasets": "train",
    "peft": "train",
    "safetensors": "train",
    "torch": "train",
    "transformers": "train",
    "docker": "docker",
    "prometheus_client": "server",
    "starlette": "server",
    "uvicorn": "server",
}


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command so that expected failures end in one line and an exit code.

    With AGENTRL_LOG_LEVEL=DEBUG the traceback is shown instead.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(130) from None
        except (AgentRLError, ImportError, OSError) as error:
            known = _as_ours(error)
            if known is None or os.environ.get("AGENTRL_LOG_LEVEL", "").upper() == "DEBUG":
                raise
            where = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
            typer.echo(f"error: {known}{where}", err=True)
            raise typer.Exit(known.exit_code) from None

    return run


def _as_ours(error: Exception) -> AgentRLError | None:
    """Translate missing packages, full disks and wrong paths; None for what nobody expected."""
    if isinstance(error, AgentRLError):
        return error
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package in _EXTRAS:
            return NotReadyError(
                f"this needs the package {package!r}: "
                f"pip install 'agentrl-toolkit[{_EXTRAS[package]}]'"
            )
    if isinstance(error, OSError) and error.errno in _FULL:
        return NotReadyError(
            f"the disk is full ({error.filename or 'while writing'}); free some space, then go on "
            f"with --resume"
        )
    if isinstance(error, OSError) and error.errno in _UNUSABLE and error.filename:
        return ConfigError(
            f"{error.filename}: {error.strerror}; name a path that can be used "
            f"(AGENTRL_LOG_LEVEL=DEBUG shows what wanted it)"
        )
    return None
