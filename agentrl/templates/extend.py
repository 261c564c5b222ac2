"""Does a reply only append to what was there, or does the template write the history anew?

A template that only appends is extended turn by turn at the price of the new messages. Any other
(it drops earlier thinking, keeps no generation prompt, closes turns by another token, moves a
message) is rendered as a whole for each policy turn. Which of the two holds is tried out once, on
dialogues that templates are known to part ways over, token by token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from agentrl.contracts.call import call_id
from agentrl.contracts.tool import ToolDict
from agentrl.errors import RenderError
from agentrl.templates.speech import Speech, common_prefix
from agentrl.templates.template import Shown

Kind = Literal["tool", "user"]

_SYSTEM: Shown = {"role": "system", "content": "Be exact."}
_ASK: Shown = {"role": "user", "content": "What is 2 + 2?"}
_AGAIN: Shown = {"role": "user", "content": "And 3 + 3?"}
_ANSWER: Shown = {"role": "assistant", "content": "It is 4."}
_THOUGHT: Shown = {
    "role": "assistant",
    "content": "<think>\nTwo and two.\n</think>\n\nIt is 4.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """A policy's message and the messages that answer it."""

    said: Shown
    reply: tuple[Shown, ...]


def kind_of(new: Sequence[Shown]) -> Kind:
    """Return what kind of reply some messages are."""
    return "tool" if new[0]["role"] == "tool" else "user"


def appended(
    speech: Speech, last_id: int, new: Sequence[Shown], tools: Sequence[ToolDict]
) -> tuple[int, np.ndarray]:
    """Return how many tokens of a turn ending in `last_id` go, and the ids that `new` adds then.

    A turn that closed itself, by whichever stop token, is not closed a second time. Where the next
    role's token ends a turn, it stands once, and another stop token gives way to it.
    """
    ids = speech.encoder.encode(speech.answer(new, tools))
    end = speech.ends[kind_of(new) == "tool"]
    stopped = last_id in speech.encoder.control.values()
    if len(ids) and (ids[0] == last_id or (end.own and stopped)):
        return 0, ids[1:]
    return int(stopped), ids


def why_not_extended(speech: Speech, kind: Kind, tools: Sequence[ToolDict]) -> str:
    """Return why replies of `kind` cannot be appended, or nothing where they can."""
    for prompt, rounds in _dialogues(kind, bool(tools), speech.ways.max_calls):
        try:
            reason = _first_difference(speech, kind, prompt, rounds, tools)
        except RenderError as error:
            reason = str(error.__cause__ or error)
        if reason:
            return reason
    return ""


def _first_difference(
    speech: Speech,
    kind: Kind,
    prompt: Sequence[Shown],
    rounds: Sequence[Round],
    tools: Sequence[ToolDict],
) -> str:
    encode = speech.encoder.encode
    messages = list(prompt)
    ids = encode(speech.text(messages, tools, generate=True))
    for turn in rounds:
        written = encode(speech.turn(messages, turn.said, tools))
        messages += [turn.said, *turn.reply]
        whole = encode(speech.text(messages, tools, generate=True))
        if kind_of(turn.reply) == kind:
            try:
                dropped, more = appended(speech, int(written[-1]), turn.reply, tools)
            except RenderError:
                dropped, more = 0, np.empty(0, dtype=np.int32)
            extended = np.concatenate([ids, written[: len(written) - dropped], more])
            if dropped:
                return "it shows no token that ends a turn"
            if not np.array_equal(extended, whole):
                return _describe(speech.encoder.decode(extended), speech.encoder.decode(whole))
        ids = whole
    return ""


def _describe(extended: str, whole: str) -> str:
    if extended == whole:
        return "its text is cut into other tokens where a turn begins"
    at = max(0, common_prefix(extended, whole) - 12)
    return f"{extended[at : at + 48]!r} becomes {whole[at : at + 48]!r}"


def _dialogues(
    kind: Kind, with_tools: bool, max_calls: int | None
) -> list[tuple[list[Shown], list[Round]]]:
    """Return prompts and what follows them."""
    thinking = "<think>\nI call.\n</think>\n\n"
    if kind == "user":
        plain = [Round(said=said, reply=(_AGAIN,)) for said in (_ANSWER, _THOUGHT, _ANSWER)]
        used = [[_called(content, 1), *plain[1:]] for content in ("", thinking) if with_tools]
        return [([_ASK], plain), ([_SYSTEM, _ASK], plain), *(([_ASK], one) for one in used)]
    several = [] if max_calls == 1 else [_called("", 4, 5)]
    return [
        ([_ASK], [_called("", 1), _called("", 2)]),
        ([_ASK], [_called(thinking, 1), _called("", 2), *several]),
        ([_SYSTEM, _ASK], [_called("I call.", 1), _called(thinking, 2)]),
    ]


def _called(content: str, *numbers: int) -> Round:
    results = ["4", "naïve – 日本語", "", '{"a": [1]}']
    calls: list[dict[str, Any]] = [
        {
            "id": call_id(0, number),
            "type": "function",
            "function": {"name": "probe", "arguments": {"text": "x", "number": number}},
        }
        for number in numbers
    ]
    reply = tuple(
        {
            "role": "tool",
            "name": "probe",
            "tool_call_id": call["id"],
            "content": results[number % len(results)],
        }
        for number, call in zip(numbers, calls, strict=True)
    )
    said: Shown = {"role": "assistant", "content": content, "tool_calls": calls}
    return Round(said=said, reply=reply)
