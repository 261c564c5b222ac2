"""Our own wire format, spoken by `service` and `http`: JSON with files in base64."""

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from agentrl.contracts.sandbox import RunRequest, RunResult, RunStatus


def _from_base64(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"expected base64: {error}") from error


Base64 = Annotated[
    bytes,
    BeforeValidator(_from_base64),
    PlainSerializer(lambda data: base64.b64encode(data).decode("ascii"), return_type=str),
]


class Wire(BaseModel):
    """A message; unknown fields are refused, so that a typing error is not ignored."""

    model_config = ConfigDict(extra="forbid")


class RunBody(Wire):
    """A `RunRequest`."""

    code: str
    language: str = "python"
    stdin: str = ""
    files: dict[str, Base64] = Field(default_factory=dict)
    fetch_files: list[str] = Field(default_factory=list)
    compile_timeout_s: float = Field(default=30.0, gt=0, le=3600)
    run_timeout_s: float = Field(default=10.0, gt=0, le=3600)
    memory_mb: int = Field(default=256, gt=0)
    max_output_bytes: int = Field(default=64 * 1024, ge=0, le=64 * 1024 * 1024)
    owner: str = ""

    @classmethod
    def of(cls, request: RunRequest) -> "RunBody":
        """Write a request down."""
        return cls.model_validate({name: getattr(request, name) for name in cls.model_fields})

    def request(self) -> RunRequest:
        """Return the request that was written down."""
        return RunRequest(**(dict(self) | {"fetch_files": tuple(self.fetch_files)}))


class RunAnswer(Wire):
    """A `RunResult`, with the reason when `status` is `sandbox_error`."""

    status: RunStatus
    exit_code: int | None = None
    signal: int | None = None
    stdout: str = ""
    stderr: str = ""
    truncated: list[str] = Field(default_factory=list)
    duration_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_mb: float = 0.0
    files: dict[str, Base64] = Field(default_factory=dict)
    sandbox_id: str = ""
    attempts: int = 1
    reason: str = ""

    @classmethod
    def of(cls, result: RunResult) -> "RunAnswer":
        """Write a result down."""
        names = cls.model_fields.keys() - {"reason"}
        return cls.model_validate({name: getattr(result, name) for name in names})

    def result(self) -> RunResult:
        """Return the result that was written down."""
        values = dict(self) | {"truncated": tuple(self.truncated)}
        del values["reason"]
        return RunResult(**values)


class OpenBody(Wire):
    """Asks for a session."""

    memory_mb: int = Field(default=256, gt=0)
    owner: str = ""


class CellBody(Wire):
    """One cell of a session."""

    code: str
    timeout_s: float = Field(default=10.0, gt=0, le=3600)
    files: dict[str, Base64] = Field(default_factory=dict)
    fetch_files: list[str] = Field(default_factory=list)


def files_to_text(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return files as base64 text."""
    return {name: base64.b64encode(data).decode("ascii") for name, data in files.items()}
