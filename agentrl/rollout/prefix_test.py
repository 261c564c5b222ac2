"""The prefix test: does a chat template only ever append?

Multi-turn training keeps the tokens of earlier turns; a template that rewrites them (strips
thinking, merges messages) would show the trainer a dialogue that inference never saw. The test
walks a dialogue turn by turn, compares what the renderer appends with what the template itself
renders, and names the first turn where they part.
"""

from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import TemplateError as JinjaError

from agentrl.contracts.message import Message
from agentrl.contracts.tool import ToolDict
from agentrl.errors import TemplateError
from agentrl.rollout.render import Renderer

_REMEDY = (
    "name a template that only appends as `model.chat_template` (the model's own, without the "
    "part that drops or moves earlier turns)"
)

_ANSWER = "<think>\nTwo and two.\n</think>\n\nIt is 4."
"""Some templates drop the thinking of earlier turns, which a policy has seen when it goes on."""


def verify_template(renderer: Renderer, tools: Sequence[ToolDict], *, users: bool = True) -> None:
    """Check that the template can be extended turn by turn, with calls of `tools` if any.

    `users` adds a second user message, as an interaction would.

    Raises:
        TemplateError: naming the turn (counted from 0, the prompt) where it cannot.
    """
    dialogue = _dialogue(tools, users)
    index = 0
    ids: list[int] = []
    try:
        for index, piece in enumerate(dialogue):
            before = [message for earlier in dialogue[:index] for message in earlier]
            ids += _check_turn(renderer, tools, before, piece, index)
    except (JinjaError, TypeError, ValueError) as error:
        raise _failure(renderer, index, dialogue[index], f"it fails: {error}") from error
    messages = [message for piece in dialogue for message in piece]
    expected = renderer.text(messages, tools).removesuffix(renderer.turn_tail)
    decoded = renderer.decode_text(ids)
    if decoded != expected:
        at = next((i for i, (a, b) in enumerate(zip(decoded, expected, strict=False)) if a != b), 0)
        raise TemplateError(
            f"chat template of {renderer.name!r}: the dialogue's tokens do not decode to its text; "
            f"at character {at} expected {expected[at : at + 40]!r}, got "
            f"{decoded[at : at + 40]!r}; {_REMEDY}"
        )


def _check_turn(
    renderer: Renderer,
    tools: Sequence[ToolDict],
    before: list[Message],
    piece: list[Message],
    index: int,
) -> list[int]:
    """Compare one turn's appended text with the template's; return its token ids."""
    if index == 0:
        return renderer.prompt(piece, tools)
    assistant = piece[0]["role"] == "assistant"
    base = renderer.text(before, tools, generate=assistant)
    whole = renderer.text([*before, *piece], tools, generate=not assistant)
    if not whole.startswith(base):
        at = next((i for i, (a, b) in enumerate(zip(base, whole, strict=False)) if a != b), 0)
        raise _failure(
            renderer,
            index,
            piece,
            f"it changes the turns before it: at character {at} {base[at : at + 40]!r} becomes "
            f"{whole[at : at + 40]!r}",
        )
    ids = renderer.assistant(piece[0], tools) if assistant else renderer.delta(piece, tools)
    appended = renderer.decode_text(ids)
    expected = whole[len(base) :]
    if assistant:
        expected = expected.removesuffix(renderer.turn_tail)
    else:
        appended = appended.removeprefix(renderer.turn_tail)
    if appended != expected:
        raise _failure(
            renderer, index, piece, f"expected {expected[:80]!r} appended, got {appended[:80]!r}"
        )
    return ids


def _failure(renderer: Renderer, index: int, piece: list[Message], what: str) -> TemplateError:
    kind = piece[0]["role"]
    return TemplateError(
        f"chat template of {renderer.name!r} breaks at turn {index} ({kind}): {what}; {_REMEDY}"
    )


def _dialogue(tools: Sequence[ToolDict], users: bool) -> list[list[Message]]:
    """Return turns, each a list of messages: a prompt, then answers and what they meet."""
    turns: list[list[Message]] = [[{"role": "user", "content": "What is 2 + 2?"}]]
    if tools:
        turns += [
            [_calls(tools, "a")],
            [_result(tools, "a", 0)],
            [_calls(tools, "b", "c")],
            [_result(tools, "b", 0), _result(tools, "c", 1)],
        ]
    turns.append([{"role": "assistant", "content": _ANSWER}])
    if users:
        turns += [
            [{"role": "user", "content": "And 3 + 3?"}],
            [{"role": "assistant", "content": "It is 6."}],
        ]
    return turns


def _calls(tools: Sequence[ToolDict], *ids: str) -> Message:
    calls: list[dict[str, Any]] = [
        {
            "id": f"call_000{call_id}",
            "type": "function",
            "function": {"name": _name(tools, i), "arguments": {"x": call_id}},
        }
        for i, call_id in enumerate(ids)
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _result(tools: Sequence[ToolDict], call_id: str, index: int) -> Message:
    return {
        "role": "tool",
        "name": _name(tools, index),
        "tool_call_id": f"call_000{call_id}",
        "content": f"result {call_id}",
    }


def _name(tools: Sequence[ToolDict], index: int) -> str:
    return str(tools[index % len(tools)]["function"]["name"])
