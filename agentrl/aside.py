"""Plain functions off the event loop, each in a thread of its own.

A pool's thread that hangs would hold up others, and the end of the program; such a thread does
neither: whoever awaits it may give up, and it is forgotten.
"""

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


async def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what a plain or async function returns; a plain one runs in a thread."""
    if inspect.iscoroutinefunction(function):
        return await function(*args, **kwargs)
    job: Future[tuple[Any, BaseException | None]] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            job.set_result((context.run(function, *args, **kwargs), None))
        except BaseException as error:  # raised again where it is awaited
            job.set_result((None, error))

    job.set_running_or_notify_cancel()
    name = getattr(function, "__qualname__", "plugin")
    threading.Thread(target=run, name=f"aside {name}", daemon=True).start()
    value, failure = await asyncio.wrap_future(job)
    if failure is not None:
        raise failure
    return await value if inspect.isawaitable(value) else value
