"""What the engine measures of itself between two training steps."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class EngineMeter:
    """Sums since the last `drain`; `cuda` adds the device's memory around sleep and wake."""

    def __init__(self, *, cuda: bool) -> None:
        self.restarts = 0
        self._cuda = cuda
        self._lengths: dict[str, int] = {}
        self._sums: dict[str, float] = {}
        self._prompt_tokens = 0
        self._cached_tokens = 0

    def count(self, session: str, prompt_ids: list[int], cached_tokens: int) -> None:
        """Count a request; of a session's later turns, what the prefix cache served of them."""
        if session in self._lengths:
            self._prompt_tokens += len(prompt_ids)
            self._cached_tokens += cached_tokens
        self._lengths[session] = len(prompt_ids)

    def synced(self, seconds: float, num_bytes: int) -> None:
        """Note a weight update."""
        self._sums["engine/sync_s"] = seconds
        self._sums["engine/sync_bytes"] = float(num_bytes)

    @contextmanager
    def measured(self, what: str) -> Iterator[None]:
        """Note how long something took, and the device's memory before and after it."""
        before, began = self._used_gb(), time.monotonic()
        yield
        self._sums[f"engine/{what}_s"] = time.monotonic() - began
        if before is not None and (after := self._used_gb()) is not None:
            self._sums[f"engine/{what}_memory_gb/before"] = before
            self._sums[f"engine/{what}_memory_gb/after"] = after

    def drain(self) -> dict[str, float]:
        """Return the metrics and begin anew."""
        metrics, self._sums = self._sums, {}
        metrics["engine/restarts"] = float(self.restarts)
        if self._prompt_tokens:
            metrics["engine/prefix_hit_rate"] = self._cached_tokens / self._prompt_tokens
        self._prompt_tokens = self._cached_tokens = 0
        self._lengths = {}
        return metrics

    def _used_gb(self) -> float | None:
        if not self._cuda:
            return None
        import torch

        free, total = torch.cuda.mem_get_info()
        return (total - free) / 1e9
