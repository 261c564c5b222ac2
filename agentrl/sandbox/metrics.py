"""The service's figures in Prometheus' text format."""

from functools import partial

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from agentrl.contracts.sandbox import RunStatus, Sandbox
from agentrl.sandbox.factory import AutoSandbox
from agentrl.sandbox.pool import Pool, PoolStats

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """Counts executions, and reads the pool's state when asked."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, sandbox: Sandbox) -> None:
        self._registry = CollectorRegistry()
        self._executions = Counter(
            "agentrl_sandbox_executions",
            "Executions by status",
            ["status"],
            registry=self._registry,
        )
        for status in RunStatus:
            self._executions.labels(status.value)
        self._seconds = Histogram(
            "agentrl_sandbox_execution_seconds",
            "Wall time of executions",
            buckets=SECONDS,
            registry=self._registry,
        )
        for name in PoolStats.__dataclass_fields__:
            gauge = Gauge(f"agentrl_sandbox_{name}", f"Pool: {name}", registry=self._registry)
            gauge.set_function(partial(_stat, sandbox, name))

    def count(self, status: str) -> None:
        """Count one execution."""
        self._executions.labels(status).inc()

    def duration(self, seconds: float) -> None:
        """Note how long one took."""
        self._seconds.observe(seconds)

    def text(self) -> bytes:
        """Return every figure."""
        return generate_latest(self._registry)


def _stat(sandbox: Sandbox, name: str) -> float:
    pool = sandbox.backend if isinstance(sandbox, AutoSandbox) else sandbox
    return float(getattr(pool.stats(), name)) if isinstance(pool, Pool) else 0.0
