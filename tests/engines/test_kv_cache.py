"""Rows keep their own keys and values while others join, leave and the buffers grow."""

import pytest
import torch
from transformers import DynamicCache

from agentrl.engines.kv_cache import MIN_COLUMNS, WindowCache, fill_gaps
from agentrl.errors import EngineError

HEADS, DIM = 2, 3


def prefilled(*fills: float, width: int) -> DynamicCache:
    """A two-layer cache whose row i holds `fills[i]`; layer 1 holds the negatives."""
    cache = DynamicCache()
    keys = torch.tensor(fills)[:, None, None, None].expand(-1, HEADS, width, DIM)
    cache.update(keys, keys + 0.5, 0)
    cache.update(-keys, -keys - 0.5, 1)
    return cache


def step(cache: WindowCache, *fills: float) -> list[list[float]]:
    """Decode one column; return each row's window as one number per column."""
    cache.reserve_column()
    column = torch.tensor(fills)[:, None, None, None].expand(-1, HEADS, 1, DIM)
    keys, values = cache.update(column, column + 0.5, 0)
    negated, _ = cache.update(-column, -column - 0.5, 1)
    cache.commit_column()
    assert torch.equal(negated, -keys)
    seen = keys != 0
    assert torch.equal(values[seen], keys[seen] + 0.5)
    return keys[:, 0, :, 0].tolist()


@pytest.mark.parametrize(
    ("kept", "order"),
    [
        ([True, True], [0, 1]),
        ([False, True], [1]),
        ([True, False, True, True], [0, 3, 2]),
        ([False, False, True, True], [3, 2]),
        ([False, True, False, True, False], [3, 1]),
    ],
)
def test_kept_rows_at_the_end_fill_the_gaps(kept, order):
    assert fill_gaps(kept) == order


def test_a_step_sees_the_prompt_and_its_own_column():
    cache = WindowCache()
    cache.append(prefilled(1, 2, width=2), [0, 1], 2)
    assert step(cache, 3, 4) == [[1, 1, 3], [2, 2, 4]]
    assert step(cache, 5, 6) == [[1, 1, 3, 5], [2, 2, 4, 6]]


def test_one_prefilled_row_may_become_several():
    cache = WindowCache()
    cache.append(prefilled(1, 2, width=1), [1, 1, 0], 1)
    assert step(cache, 7, 8, 9) == [[2, 7], [2, 8], [1, 9]]


def test_a_wider_joiner_widens_the_window_to_the_left():
    cache = WindowCache()
    cache.append(prefilled(1, width=1), [0], 1)
    step(cache, 1)
    cache.append(prefilled(2, width=4), [0], 4)
    assert step(cache, 3, 4) == [[0, 0, 1, 1, 3], [2, 2, 2, 2, 4]]


def test_a_narrow_joiner_is_right_aligned():
    cache = WindowCache()
    cache.append(prefilled(1, width=3), [0], 3)
    cache.append(prefilled(2, width=1), [0], 1)
    assert step(cache, 3, 4) == [[1, 1, 1, 3], [0, 0, 2, 4]]


def test_a_prefill_that_left_the_cache_empty_is_refused():
    with pytest.raises(EngineError, match="cached 0 of 3 prompt positions"):
        WindowCache().append(DynamicCache(), [0], 3)


def test_rows_leave_and_the_window_is_trimmed():
    cache = WindowCache()
    cache.append(prefilled(1, 2, 3, width=3), [0, 1, 2], 3)
    step(cache, 4, 5, 6)
    cache.keep_rows([2, 1], width=2)
    assert step(cache, 7, 8) == [[3, 6, 7], [2, 5, 8]]
    assert cache.get_seq_length() == 3


def test_growth_keeps_every_column():
    cache = WindowCache()
    cache.append(prefilled(1, width=2), [0], 2)
    fills = [float(i) for i in range(2, 3 * MIN_COLUMNS)]
    for fill in fills:
        window = step(cache, fill)
    assert window == [[1, 1, *fills]]
