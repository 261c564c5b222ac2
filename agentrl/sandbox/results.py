"""From a guest's result frame to a `RunResult`; the guest's word is checked, never trusted."""

from agentrl.contracts.sandbox import RunResult, RunStatus
from agentrl.errors import SandboxError, ToolError
from agentrl.sandbox.frames import Frame


def read_result(frame: Frame, *, sandbox_id: str, attempts: int) -> RunResult:
    """Decode a result frame.

    Raises:
        ToolError: the guest refused the request (a path outside the work directory).
        SandboxError: the frame makes no sense.
    """
    header = frame.header
    if header.get("status") == "refused":
        raise ToolError(str(header.get("reason")))
    try:
        names = header.get("files", [])
        stdout, stderr, *contents = frame.blobs or (b"", b"")
        out, out_damaged = decode(stdout)
        err, err_damaged = decode(stderr)
        truncated = list(header.get("truncated", []))
        if out_damaged or err_damaged:
            truncated.append("invalid_utf8")
        return RunResult(
            status=RunStatus(header["status"]),
            exit_code=header.get("exit_code"),
            signal=header.get("signal"),
            stdout=out,
            stderr=err,
            truncated=tuple(truncated),
            duration_s=float(header["duration_s"]),
            cpu_s=float(header["cpu_s"]),
            peak_memory_mb=float(header["peak_kib"]) / 1024,
            files=dict(zip(names, contents, strict=True)),
            sandbox_id=sandbox_id,
            attempts=attempts,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SandboxError(f"sandbox {sandbox_id} sent a senseless result: {error!r}") from error


def decode(data: bytes) -> tuple[str, bool]:
    """Decode UTF-8 with replacements; returns the text and whether any were needed."""
    try:
        return data.decode("utf-8"), False
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace"), True
