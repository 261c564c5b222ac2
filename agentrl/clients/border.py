"""The border of HTTP libraries: behind it, their exceptions are ours.

httpx and httpx2 (which mcp and openai bring) name their exceptions alike and share no base, so that
`except httpx.HTTPError` lets those of httpx2 pass. Here each library is looked up by its name:
one that was never imported has raised nothing.
"""

import ssl
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any

from agentrl.errors import InfraError

_BASES = {
    "httpx": ("HTTPError", "InvalidURL", "StreamError"),
    "httpx2": ("HTTPError", "InvalidURL", "StreamError"),
    "h11": ("ProtocolError",),
    "openai": ("OpenAIError",),
    "mcp": ("MCPError", "McpError"),
}
_SHOWN_CHARS = 300


class TransientError(InfraError):
    """No answer, 429 or 5xx: another attempt, here or elsewhere, may do.

    Attributes:
        status: the answer's, 0 where there was none.
        retry_after_s: the pause that the server asked for, 0 if none.
        late: the server was reached and did not answer in time.
    """

    def __init__(
        self, message: str, *, status: int = 0, retry_after_s: float = 0.0, late: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.retry_after_s, self.late = status, retry_after_s, late


class RefusedError(InfraError):
    """The server does not take the request (4xx), or cannot be trusted (0): not again either."""

    def __init__(self, message: str, *, status: int, text: str = "") -> None:
        super().__init__(message)
        self.status, self.text = status, text


@contextmanager
def border(url: str, *, remedy: str = "") -> Iterator[None]:
    """Translate whatever a library of HTTP raises inside; other exceptions pass unchanged.

    Raises:
        TransientError: no answer, or one that says to come again.
        RefusedError: an answer of 4xx, or a certificate that this machine does not trust.
    """
    try:
        yield
    except InfraError:
        raise
    except ssl.SSLCertVerificationError as error:
        trust = remedy or "name your authority's certificate in SSL_CERT_FILE"
        raise RefusedError(
            _message(url, "a certificate that this machine trusts", str(error), trust), status=0
        ) from error
    except failures() as error:
        response = getattr(error, "response", None)
        if response is not None:
            refused = status_error(
                url, response.status_code, _text(response), response.headers, remedy=remedy
            )
            raise refused from error
        late = isinstance(error, TimeoutError) or "Timeout" in type(error).__name__
        why = str(error) or type(error).__name__
        # A connection that cannot be made in time is an address where nobody is.
        reached = "Connect" not in type(error).__name__
        raise TransientError(
            _message(url, "an answer", why, remedy or "see that a server runs there"),
            late=late and reached,
        ) from error


def status_error(
    url: str, status: int, text: str, headers: Mapping[str, str], *, remedy: str = ""
) -> TransientError | RefusedError:
    """Return the error of a status of 400 and above."""
    got = f"{status} {text[:_SHOWN_CHARS]}".rstrip()
    if status == 429 or status >= 500:
        remedy = remedy or "see the server's log, or ask less of it at once"
        message = _message(url, "status 200", got, remedy)
        return TransientError(message, status=status, retry_after_s=retry_after_s(headers))
    message = _message(url, "status 200", got, remedy or "see what the server expects there")
    return RefusedError(message, status=status, text=text)


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Return the seconds of `Retry-After`, which may be a date; 0 without one."""
    asked = headers.get("retry-after", "0")
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except ValueError:  # neither: a server's own invention
        return 0.0


def failures() -> tuple[type[Exception], ...]:
    """Return what sockets raise, and the base exceptions of the libraries imported by now."""
    found = (
        getattr(sys.modules[library], name, None)
        for library, names in _BASES.items()
        if library in sys.modules
        for name in names
    )
    return (OSError, *(base for base in found if base is not None))


def _text(response: Any) -> str:
    # The body of a streamed response may not have been read.
    try:
        return str(response.text)
    except RuntimeError:
        return ""


def _message(url: str, expected: str, got: str, remedy: str) -> str:
    return f"{url}: {got} (expected {expected}; {remedy})"
