"""A KV cache whose rows come and go while the others keep decoding.

Every row is right-aligned at one shared column, so a decode step writes a single column in place
instead of concatenating. Columns left of all rows are outside the window that attention sees;
those left of one row are masked by the caller. Buffers grow by doubling, rows and columns alike.

Shapes: R rows, H heads, C columns (token positions), D head dimension.
"""

import torch
from transformers import PretrainedConfig
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

from agentrl.errors import ConfigError, EngineError

MIN_COLUMNS = 64


def check_cacheable(config: PretrainedConfig) -> None:
    """Refuse models whose layers keep more than keys and values per position.

    Raises:
        ConfigError: naming the first layer of another kind.
    """
    for index, layer in enumerate(DynamicCache(config=config).layers):
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise ConfigError(
                f"the transformers engine needs a key-value cache in every layer; layer {index} "
                f"of {config.model_type!r} uses {type(layer).__name__}: choose another "
                "engine.type, such as vllm"
            )


class Window:
    """Which part of the buffers is in use; shared by all layers of one cache."""

    __slots__ = ("column_capacity", "end", "row_capacity", "rows", "start")

    def __init__(self) -> None:
        self.rows = 0
        self.start = 0
        self.end = 0
        self.row_capacity = 0
        self.column_capacity = 0

    @property
    def width(self) -> int:
        """Number of columns in use."""
        return self.end - self.start


class WindowLayer(CacheLayerMixin):  # type: ignore[misc]
    """One attention layer's keys and values, `[R, H, C, D]`."""

    is_sliding = False

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.window = window

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the buffers for states of this shape, dtype and device."""
        self.keys = self._buffer(key_states)
        self.values = self._buffer(value_states)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one column, `[R, H, 1, D]`, and return the whole window with it."""
        assert self.keys is not None and self.values is not None
        window = self.window
        self.keys[: window.rows, :, window.end : window.end + 1] = key_states
        self.values[: window.rows, :, window.end : window.end + 1] = value_states
        columns = slice(window.start, window.end + 1)
        return self.keys[: window.rows, :, columns], self.values[: window.rows, :, columns]

    def append(self, keys: torch.Tensor, values: torch.Tensor, rows: list[int]) -> None:
        """Put prefilled states, `[R', H, C', D]` picked by `rows`, below the present rows."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        assert self.keys is not None and self.values is not None
        window, width = self.window, keys.shape[2]
        below = slice(window.rows, window.rows + len(rows))
        self.keys[below, :, window.end - width : window.end] = keys[rows]
        self.values[below, :, window.end - width : window.end] = values[rows]

    def move_rows(self, source: list[int], target: list[int]) -> None:
        """Copy whole rows onto others; no row is both."""
        assert self.keys is not None and self.values is not None
        columns = slice(self.window.start, self.window.end)
        self.keys[target, :, columns] = self.keys[source, :, columns]
        self.values[target, :, columns] = self.values[source, :, columns]

    def relocate(self, old_columns: slice, new_columns: slice) -> None:
        """Move what is in use to buffers of the window's present capacity."""
        if self.keys is None or self.values is None:
            return
        rows = slice(0, self.window.rows)
        keys, self.keys = self.keys, self._buffer(self.keys)
        self.keys[rows, :, new_columns] = keys[rows, :, old_columns]
        values, self.values = self.values, self._buffer(self.values)
        self.values[rows, :, new_columns] = values[rows, :, old_columns]

    def get_seq_length(self) -> int:
        """Return the number of columns attention sees before this step's."""
        return self.window.width

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the length and offset of the attention mask."""
        return self.window.width + query_length, 0

    def get_max_length(self) -> int:
        """Return -1: the buffers grow."""
        return -1

    def _buffer(self, like: torch.Tensor) -> torch.Tensor:
        # Zeros, not `empty`: a masked column still takes part as 0 * value, and 0 * NaN is NaN.
        shape = (self.window.row_capacity, like.shape[1], self.window.column_capacity)
        return like.new_zeros((*shape, like.shape[3]))


class WindowCache(Cache):  # type: ignore[misc]
    """The cache handed to the model in decode steps."""

    def __init__(self) -> None:
        self.window = Window()
        super().__init__(layers=[])

    def append(self, prefilled: DynamicCache, rows: list[int], width: int) -> None:
        """Add rows of a left-padded prefill of `width` columns; one may be named repeatedly.

        Raises:
            EngineError: the model did not fill the cache, so it must keep its state elsewhere.
        """
        window = self.window
        if prefilled.get_seq_length() != width:
            raise EngineError(
                f"the model cached {prefilled.get_seq_length()} of {width} prompt positions: it "
                "does not use a standard key-value cache; choose another engine.type"
            )
        if window.rows + len(rows) > window.row_capacity or window.end < width:
            self._relocate(rows=window.rows + len(rows), columns=max(window.width, width))
        while len(self.layers) < len(prefilled.layers):
            self.layers.append(WindowLayer(window))
        for own, new in zip(self.layers, prefilled.layers, strict=True):
            own.append(new.keys, new.values, rows)
        window.rows += len(rows)
        window.start = min(window.start, window.end - width)

    def reserve_column(self) -> None:
        """Make sure the next decode step has a column to write."""
        if self.window.end == self.window.column_capacity:
            self._relocate(rows=self.window.rows, columns=self.window.width)

    def commit_column(self) -> None:
        """Count the column that a decode step has written."""
        self.window.end += 1

    def keep_rows(self, order: list[int], width: int) -> None:
        """Keep the rows `order`, in that order, and trim the window to their `width` columns.

        Rows may change place only into slots that are freed (`fill_gaps` gives such an order).
        """
        moves = [(source, target) for target, source in enumerate(order) if source != target]
        if moves:
            sources, targets = (list(side) for side in zip(*moves, strict=True))
            for layer in self.layers:
                layer.move_rows(sources, targets)
        self.window.rows = len(order)
        self.window.start = self.window.end - width

    def _relocate(self, *, rows: int, columns: int) -> None:
        """Double capacities as needed; the window ends at `columns`, half the buffer is free."""
        window = self.window
        old = slice(window.start, window.end)
        new = slice(columns - window.width, columns)
        window.row_capacity = max(window.row_capacity, 1 << max(rows - 1, 0).bit_length())
        window.column_capacity = max(MIN_COLUMNS, 2 * columns)
        for layer in self.layers:
            layer.relocate(old, new)
        window.start, window.end = new.start, new.stop


def fill_gaps(kept: list[bool]) -> list[int]:
    """Order the kept rows so that few move: those at the end fill the gaps left by the others.

    Returns:
        For each new row, the old row it comes from.
    """
    count = sum(kept)
    tail = [i for i in range(count, len(kept)) if kept[i]]
    return [i if kept[i] else tail.pop() for i in range(count)]
