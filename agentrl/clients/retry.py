"""How often, how long apart and until when a request is tried again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.stop import stop_before_delay
from tenacity.wait import wait_random_exponential

from agentrl.clients.border import TransientError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0


def attempts(retries: int, *, deadline_s: float) -> AsyncRetrying:
    """Return the attempts of one request: `async for attempt in ...: with attempt: ...`.

    Only a `TransientError` is tried again, at most `retries` times and with growing pauses; a
    pause is at least what the server asked for, and one that would pass the deadline is not
    begun. The last error is raised as it is.
    """
    return AsyncRetrying(
        retry=retry_if_exception_type(TransientError),
        stop=stop_after_attempt(1 + retries) | stop_before_delay(deadline_s),
        wait=_pause,
        reraise=True,
    )


@asynccontextmanager
async def deadline(
    what: str, limit_s: float, *, key: str, troubles: Callable[[], str] = str
) -> AsyncIterator[None]:
    """Bound all attempts inside together; `key` names the setting that the limit comes from.

    Raises:
        TransientError: it took longer; `troubles` says what was wrong meanwhile.
    """
    limit = asyncio.timeout(limit_s)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        why = troubles()
        raise TransientError(
            f"{what}: no answer within {key}={limit_s:g}" + (f" ({why})" if why else "")
        ) from error


_growing = wait_random_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S)


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.retry_after_s if isinstance(error, TransientError) else 0.0
    return max(asked, _growing(state))
