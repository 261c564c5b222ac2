"""What was made last, kept by its key: groups ask for one prompt many times, and groups overlap."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_MOST = 64


class Recent(Generic[T]):
    """Keeps the `most` results that were made last. Threads may share it."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._made: OrderedDict[str, T] = OrderedDict()

    def get(self, key: str, make: Callable[[], T]) -> T:
        """Return what was made for `key`, or make it."""
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = make()
            while len(self._made) > self._most:
                self._made.popitem(last=False)
        return made
