"""Reads Python literals out of a policy's text, which may go on behind them.

`ast` reads whole expressions only, and may exhaust its stack on hostile ones. So a value is first
followed to its end by its brackets and strings, then handed to `ast.literal_eval` only when it is
made of literals' tokens: of these, Python itself refuses to nest too many.
"""

import ast
import re
import warnings
from typing import Any

from agentrl.templates.formats.values import ValueFault, check_value

_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
    | (?P<string>(?:\b[rRuU])?(?:
        '''(?:[^\\]|\\.)*?''' | \"\"\"(?:[^\\]|\\.)*?\"\"\"
        | '(?:[^'\\\n]|\\.)*' | "(?:[^"\\\n]|\\.)*"))
    | (?P<unclosed>['"])
    | (?P<number>(?:\d[\w.]*(?:(?<=[eE])[-+]\d+)?|\.\d\w*(?:(?<=[eE])[-+]\d+)?))
    | (?P<name>[^\W\d]\w*)
    | (?P<open>[\[({])
    | (?P<close>[\])}])
    | (?P<mark>[,:])
    | (?P<sign>[-+])
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_NAMES = dict.fromkeys(("True", "true"), "True") | dict.fromkeys(("False", "false"), "False")
_NAMES |= dict.fromkeys(("None", "null"), "None")
"""JSON's names are taken too: a template that writes values with `tojson` teaches them."""
_PAIRS = {")": "(", "]": "[", "}": "{"}


def literal_end(text: str, start: int) -> int:
    """Return where the value at `start` ends: before a comma or a bracket that is not its own.

    Raises:
        ValueFault: a string or a bracket is not closed.
    """
    opened: list[str] = []
    position = start
    while token := _TOKEN.match(text, position):
        if token["unclosed"]:
            raise ValueFault("a string is not closed", len(text))
        if token["open"]:
            opened.append(token[0])
        elif not opened and (token["close"] or token[0] == ","):
            return position
        elif token["close"] and opened.pop() != _PAIRS[token[0]]:
            raise ValueFault(f"a {token[0]!r} closes nothing", position)
        position = token.end()
    if opened:
        raise ValueFault(f"a {opened[-1]!r} is not closed", len(text))
    return position


def read_literal(source: str) -> Any:
    """Read a Python literal that JSON can hold; tuples become lists.

    Raises:
        ValueFault: it is anything else; the message says why.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unknown escapes, which Python still reads
            value = ast.literal_eval(_literal_source(source))
        value = _as_json(value)
        check_value(value)
    except SyntaxError as error:
        raise ValueFault(f"{_short(source)} is not a literal ({error.msg})", 0) from error
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueFault(f"{_short(source)} is not a literal ({error})", 0) from error
    return value


def _literal_source(source: str) -> str:
    """Return the source with Python's names for JSON's.

    Raises:
        ValueError: it holds what is not a literal's token.
    """
    written: list[str] = []
    before = "start"
    for token in _TOKEN.finditer(source.strip()):
        kind = str(token.lastgroup)
        if kind == "space":
            continue
        if kind in ("other", "unclosed") or (kind == "name" and token[0] not in _NAMES):
            raise ValueError(f"{_short(token[0])} is no part of one")
        if kind in ("string", "number", "name", "open", "sign") and before in (
            *("number", "name", "close"),
            *(() if kind == "string" else ("string",)),
        ):
            raise ValueError(f"{_short(token[0])} is one value too many")
        written.append(_NAMES.get(token[0], token[0]))
        before = kind
    return " ".join(written)


def _as_json(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is not a string")
        return {key: _as_json(item) for key, item in value.items()}
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"JSON has no {type(value).__name__}")


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
