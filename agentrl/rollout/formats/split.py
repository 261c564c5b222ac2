"""Walks over a policy's turn and hands each place where a call may begin to the format's reader.

Calls inside a thinking block are ignored: thinking that opened in the prompt (`... </think>`
without its start) is honoured, and a block that never closes hides everything after it. A tag
inside a call's argument is text, because the reader has taken the whole call by then.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from agentrl.contracts.call import ParsedTurn
from agentrl.contracts.tool import ToolCall
from agentrl.rollout.formats.turn import call_id

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
_MOST_BROKEN = 32
"""Broken calls read while looking for the end of thinking: each may be read to the text's end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What a reader found: no call or several, where it stopped, and what stays in the content."""

    calls: tuple[ToolCall, ...] = ()
    end: int
    shown: str = ""


Reader = Callable[[str, re.Match[str], int], Reading]
"""Called with the text, the match of the format's opener, and where the last reading ended."""


def split_turn(text: str, opener: str, read: Reader, *, turn: int) -> ParsedTurn:
    """Split `text` into content and calls; `opener` is the pattern of where a call may begin."""
    calls: list[ToolCall] = []
    position = _end_of_open_thinking(text, opener, read)
    outside = [text[:position]]
    next_place = re.compile(f"{THINK_OPEN}|{opener}")
    while match := next_place.search(text, position):
        outside.append(text[position : match.start()])
        if match[0] == THINK_OPEN:
            end = text.find(THINK_CLOSE, match.end())
            end = len(text) if end < 0 else end + len(THINK_CLOSE)
            outside.append(text[match.start() : end])
        else:
            reading = read(text, match, position)
            calls += reading.calls
            outside.append(reading.shown)
            end = reading.end
        position = end
    outside.append(text[position:])
    numbered = (replace(call, id=call_id(turn, i)) for i, call in enumerate(calls))
    return ParsedTurn(content="".join(outside).strip(), calls=tuple(numbered))


def _end_of_open_thinking(text: str, opener: str, read: Reader) -> int:
    """Return where the thinking that the prompt opened ends; 0 when there is none."""
    if THINK_CLOSE not in text:
        return 0
    position, num_broken = 0, 0
    next_place = re.compile(f"{THINK_OPEN}|{THINK_CLOSE}|{opener}")
    while num_broken < _MOST_BROKEN and (match := next_place.search(text, position)):
        if match[0] in (THINK_OPEN, THINK_CLOSE):
            return match.end() if match[0] == THINK_CLOSE else 0
        # What stands inside a whole call is an argument's text, not the end of thinking.
        reading = read(text, match, position)
        whole = bool(reading.calls) and all(call.error is None for call in reading.calls)
        position = reading.end if whole else match.end()
        num_broken += bool(reading.calls) and not whole
    close = text.find(THINK_CLOSE, position)
    return 0 if close < 0 else close + len(THINK_CLOSE)
