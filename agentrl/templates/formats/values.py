"""Reads the values that policies write, and refuses those that nothing else could hold.

A call's arguments are written to trace files and rendered back into prompts, so what Python can
hold but JSON cannot (NaN, a lone surrogate, very deep nesting) is a fault of the call.
"""

import json
from typing import Any

DEEPEST = 64
"""Levels of nesting in a call; JSON readers refuse a trace of some 200."""

_READER = json.JSONDecoder(strict=False)
_WRITER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


class ValueFault(ValueError):
    """A value that cannot be read; `position` is how far into the text it could be followed."""

    def __init__(self, why: str, position: int) -> None:
        super().__init__(why)
        self.position = position


def read_json(text: str, start: int = 0) -> tuple[Any, int]:
    """Read the JSON value at `start`; return it and where it ends.

    Raises:
        ValueFault: it is not JSON, or nothing else could hold it; the message says why.
    """
    try:
        value, end = _READER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise ValueFault(error.msg, error.pos) from error
    except RecursionError as error:
        raise ValueFault(f"nested deeper than {DEEPEST}", len(text)) from error
    except ValueError as error:  # an integer of thousands of digits
        raise ValueFault(str(error), len(text)) from error
    try:
        check_value(value)
    except ValueError as error:
        raise ValueFault(str(error), end) from error
    return value, end


def check_value(value: Any) -> None:
    """Check that a value can be written to a file and read back.

    Raises:
        ValueError: it cannot; the message says why.
    """
    _check_depth(value)
    try:
        _WRITER.encode(value).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a string holds a lone surrogate") from error


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise ValueError(f"nested deeper than {DEEPEST}")
