"""When a run tells that it waits, and that something holds its event loop."""

from pydantic import PositiveFloat

from agentrl.config.base import Section


class WatchConfig(Section):
    """The thread that watches a run; it tells, and ends nothing."""

    tell_after_s: PositiveFloat = 55.0
    """The age at which a wait is told, with who waits for what and the remedy; again at twice the
    age, and so on. Looks are a twelfth of it apart, so that it is told by the first minute."""
    lag_s: PositiveFloat = 0.5
    """Seconds without the event loop's answer after which it is told who holds it."""
    status_every_s: PositiveFloat = 5.0
    """Seconds between two writings of the run folder's status.json."""
