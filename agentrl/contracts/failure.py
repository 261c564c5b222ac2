"""What went wrong, as data: the kind, the exception's type, its message and its traceback."""

import traceback as tracebacks
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """One failure of a plugin, an engine or a template.

    `kind` is the class of the rollout family that `errors.boundary` attributed it to
    (`PluginError`, `InfraError`, ...); `type` the class of the exception that it attributed.
    """

    kind: str
    type: str
    message: str
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Describe an exception, with the traceback of everything that led to it."""
        return cls(
            kind=type(error).__name__,
            type=type(error.__cause__ or error).__name__,
            message=str(error),
            traceback="".join(tracebacks.format_exception(error)),
        )
