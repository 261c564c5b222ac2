"""What is said of long waits: once when they pass the limit, again at doubled ages, many as one."""

from collections.abc import Sequence
from itertools import groupby

from agentrl.waits import Wait

_NEARLY = 0.75
"""Of the limit: what has waited this long for the same thing is told along with the first."""


def tell(waits: Sequence[Wait], after_s: float) -> list[str]:
    """Return a line for every resource with waits that are due to be told, and mark them told.

    Args:
        waits: those under way.
        after_s: the age in seconds at which a wait is told first.
    """
    lines = []
    for _, alike in groupby(sorted(waits, key=_kind), key=_kind):
        group = list(alike)
        if any(wait.age_s >= max(after_s, 2 * wait.told_s) for wait in group):
            late = [wait for wait in group if wait.age_s >= _NEARLY * after_s]
            lines.append(_line(late))
            for wait in late:
                wait.told_s = max(wait.age_s, after_s)
    return lines


def _kind(wait: Wait) -> tuple[str, str]:
    return wait.resource, wait.remedy


def _line(alike: Sequence[Wait]) -> str:
    oldest = max(alike, key=lambda wait: wait.age_s)
    age = _seconds(oldest.age_s)
    end = "" if oldest.deadline_s is None else f" (given up at {_seconds(oldest.deadline_s)})"
    if len(alike) == 1:
        who = f"{oldest.waiter} waits for {oldest.resource}, {age} already{end}"
    else:
        kinds = {wait.waiter.partition(" ")[0] for wait in alike}
        kind = f"{kinds.pop()}s" if len(kinds) == 1 else "waiters"
        who = (
            f"{len(alike)} {kind} wait for {oldest.resource}, the oldest ({oldest.waiter}) "
            f"{age} already{end}"
        )
    return f"{who}: {oldest.remedy}"


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"
