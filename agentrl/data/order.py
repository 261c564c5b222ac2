"""Which samples a step sees: epoch after epoch, each in its own seeded order.

A pure function of the position, so that the position is all a checkpoint has to remember.
"""

import random
from functools import lru_cache


def index_at(position: int, count: int, *, seed: int) -> int:
    """Return the index at `position` of an endless pass over `count` samples, shuffled anew."""
    epoch, place = divmod(position, count)
    return _order(count, seed, epoch)[place]


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return tuple(order)
