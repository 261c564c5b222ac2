"""Whether what is trained on takes as long as what was begun, or only the short episodes are."""

import logging
from collections import deque

logger = logging.getLogger(__name__)

_WINDOW, _ENOUGH, _SLOW = 512, 64, 0.2


class Shares:
    """The slowest fifth of the latest groups that were begun, and its share of those trained on.

    A group that was cancelled counts with the time it had run for.
    """

    def __init__(self) -> None:
        self._groups: deque[tuple[float, bool]] = deque(maxlen=_WINDOW)
        self._warned = False

    def note(self, seconds: float, *, trained: bool) -> None:
        """Enter one group."""
        self._groups.append((seconds, trained))

    def metrics(self) -> dict[str, float]:
        """Return both shares; warn once when they part."""
        trained = [seconds for seconds, taken in self._groups if taken]
        if not trained:
            return {}
        durations = sorted((seconds for seconds, _ in self._groups), reverse=True)
        slow = durations[max(int(len(durations) * _SLOW), 1) - 1]
        begun = sum(seconds >= slow for seconds in durations) / len(durations)
        share = sum(seconds >= slow for seconds in trained) / len(trained)
        if share < begun / 2 and len(trained) >= _ENOUGH and not self._warned:
            self._warned = True
            logger.warning(
                "the slowest fifth of the groups are %.0f%% of those trained on: the policy learns "
                "from short episodes; rollout.take=fair trains on what was begun",
                100 * share,
            )
        return {"perf/slow_share/begun": begun, "perf/slow_share/trained": share}
