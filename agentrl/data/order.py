"""Which samples a step sees: epoch after epoch, each in its own seeded order.

A pure function of the position, so that the position is all a checkpoint has to remember.
"""

import random
from collections.abc import Iterator
from functools import lru_cache


def take(count: int, *, start: int, size: int, seed: int) -> Iterator[int]:
    """Yield the indices at positions `start` to `start + size` of an endless shuffled pass."""
    for position in range(start, start + size):
        epoch, place = divmod(position, count)
        yield _order(count, seed, epoch)[place]


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return tuple(order)
