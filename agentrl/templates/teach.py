"""Says in a template's terms what it cannot show by itself: tools, results, a system prompt.

`Ways` is what was found out about a template; `adapt` rewrites a dialogue accordingly, in the same
manner for prompts, replies and demonstrations. Calls taught in words have Hermes form.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentrl.contracts.call import call_id
from agentrl.contracts.tool import ToolDict
from agentrl.templates.formats.hermes import format_tool_call
from agentrl.templates.template import Shown

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
_TOOL_SYSTEM = """\
You may call functions to help you. Their signatures:
<tools>
{tools}
</tools>
To call one, write:
<tool_call>
{{"name": <function-name>, "arguments": <arguments-object>}}
</tool_call>"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ways:
    """How a template is shown what it may not know of; the defaults are a template that knows all.

    Attributes:
        native: tools and calls have the template's own form; else they are taught in words.
        tool_role: results are messages of the role `tool`; else of the user.
        orphans: a result may answer a call that the template was not shown (a broken one).
        system_role: there is a system role; else its text opens the first user message.
        alternate: roles must alternate, so neighbours of one role are merged.
        parts: content is a list of parts, never a text.
        max_calls: how many calls of one turn the template shows; None is any number.
        counted_ids: a call's id is its name and its number in the dialogue, as Kimi K2's.
        thinking_key: the message's field for thinking, where the template refuses it in content.
    """

    native: bool = True
    tool_role: bool = True
    orphans: bool = True
    system_role: bool = True
    alternate: bool = False
    parts: bool = False
    max_calls: int | None = None
    counted_ids: bool = False
    thinking_key: str | None = None


def adapt(
    messages: Sequence[Shown], tools: Sequence[ToolDict], ways: Ways
) -> tuple[list[Shown], list[ToolDict]]:
    """Return the messages and tools that the template is to render."""
    shown = [_with_open_thinking(message) for message in messages]
    if ways.native:
        shown = _numbered(_answered_in_turn(shown, ways), ways)
    else:
        shown = [_in_plain_words(message) for message in shown]
        if tools:
            shown = _with_system(shown, _describe(tools))
        tools = ()
    if not ways.tool_role:
        shown = _results_of_user(shown)
    if not ways.system_role:
        shown = _system_in_user(shown)
    if ways.alternate:
        shown = _merged(shown)
    if ways.thinking_key is not None:
        shown = [_with_thinking_apart(message, ways.thinking_key) for message in shown]
    if ways.parts:
        shown = [
            {**message, "content": [{"type": "text", "text": message["content"]}]}
            for message in shown
        ]
    return shown, list(tools)


def plain_message(message: Shown) -> Shown:
    """Return a message whose content is one text: of parts, their texts; of none, nothing."""
    content = message.get("content")
    if isinstance(content, list):
        texts = [str(part.get("text", "")) for part in content if part.get("type") == "text"]
        content = "".join(texts)
    return {**message, "content": content or ""}


def split_thinking(text: str) -> tuple[str, str]:
    """Return what stands inside leading thinking, stripped, and what comes behind it."""
    head, close, rest = text.partition(THINK_CLOSE)
    if not close:
        return "", text
    return head.strip().removeprefix(THINK_OPEN).strip(), rest.lstrip("\n")


def _with_open_thinking(message: Shown) -> Shown:
    """Write `<think>` before thinking that the generation prompt had opened."""
    content = message["content"]
    before, close, _ = content.partition(THINK_CLOSE)
    if message["role"] != "assistant" or not close or THINK_OPEN in before:
        return message
    return {**message, "content": f"{THINK_OPEN}\n{content.removeprefix(chr(10))}"}


def _with_thinking_apart(message: Shown, key: str) -> Shown:
    thinking, rest = split_thinking(message["content"])
    if message["role"] != "assistant" or not thinking:
        return message
    return {**message, "content": rest, key: thinking}


def _answered_in_turn(messages: list[Shown], ways: Ways) -> list[Shown]:
    """Leave out calls beyond what one turn may hold; say results of no shown call as a user.

    They come behind the results of the calls that are shown: some templates render only what
    follows a call directly.
    """
    shown: list[Shown] = []
    orphans: list[Shown] = []
    open_ids: set[object] = set()
    for message in messages:
        if message["role"] != "tool":
            shown += orphans
            orphans = []
        calls = message.get("tool_calls")
        if message["role"] == "assistant":
            open_ids = {call.get("id") for call in (calls or [])[: ways.max_calls]}
            if calls:
                message = {**message, "tool_calls": calls[: ways.max_calls]}
        orphan = message["role"] == "tool" and message.get("tool_call_id") not in open_ids
        if orphan and not ways.orphans:
            orphans.append({"role": "user", "content": _response(message["content"])})
        else:
            shown.append(message)
    return shown + orphans


def _numbered(messages: list[Shown], ways: Ways) -> list[Shown]:
    """Give calls the ids that templates insist on, and results the ids of their calls."""
    renamed: dict[object, str] = {}
    num_calls = 0
    shown: list[Shown] = []
    for message in messages:
        if message["role"] == "tool" and "tool_call_id" in message:
            old = message["tool_call_id"]
            message = {**message, "tool_call_id": renamed.get(old) or _well_formed(old, 0)}
        elif calls := message.get("tool_calls"):
            written = []
            for call in calls:
                name, old = call["function"]["name"], call.get("id")
                counted = f"functions.{name}:{num_calls}"
                new = counted if ways.counted_ids else _well_formed(old, num_calls)
                renamed[old] = new
                num_calls += 1
                written.append({"type": "function", **call, "id": new})
            message = {**message, "tool_calls": written}
        shown.append(message)
    return shown


def _well_formed(old: object, index: int) -> str:
    text = str(old)
    good = len(text) == 9 and text.isascii() and text.isalnum()
    return text if good else call_id(0, index)


def _in_plain_words(message: Shown) -> Shown:
    """Put the calls of an assistant message into its content."""
    calls = message.get("tool_calls")
    if not calls:
        return message
    written = [format_tool_call(c["function"]["name"], c["function"]["arguments"]) for c in calls]
    return {"role": "assistant", "content": "\n".join(filter(None, [message["content"], *written]))}


def _describe(tools: Sequence[ToolDict]) -> str:
    return _TOOL_SYSTEM.format(tools="\n".join(json.dumps(t, ensure_ascii=False) for t in tools))


def _with_system(messages: list[Shown], text: str) -> list[Shown]:
    if messages and messages[0]["role"] == "system":
        first = {"role": "system", "content": f"{messages[0]['content']}\n\n{text}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _response(content: str) -> str:
    return f"<tool_response>\n{content}\n</tool_response>"


def _results_of_user(messages: list[Shown]) -> list[Shown]:
    """Let the user tell the results of a turn's calls, all in one message."""
    shown: list[Shown] = []
    before = ""
    for message in messages:
        role = str(message["role"])
        if role == "tool":
            told = _response(message["content"])
            if before == "tool":
                told = f"{shown.pop()['content']}\n{told}"
            message = {"role": "user", "content": told}
        shown.append(message)
        before = role
    return shown


def _system_in_user(messages: list[Shown]) -> list[Shown]:
    """Let the first user message begin with the system prompt."""
    told = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    rest = [message for message in messages if message["role"] != "system"]
    if not told:
        return rest
    if rest and rest[0]["role"] == "user":
        return [{**rest[0], "content": f"{told}\n\n{rest[0]['content']}"}, *rest[1:]]
    return [{"role": "user", "content": told}, *rest]


def _merged(messages: list[Shown]) -> list[Shown]:
    """Join neighbours of one role that has to alternate."""
    shown: list[Shown] = []
    for message in messages:
        same = bool(shown) and shown[-1]["role"] == message["role"]
        if not same or message["role"] not in ("user", "assistant"):
            shown.append(message)
            continue
        last = shown.pop()
        joined: dict[str, Any] = {**last, **message}
        joined["content"] = "\n\n".join(filter(None, [last["content"], message["content"]]))
        calls = [*last.get("tool_calls", ()), *message.get("tool_calls", ())]
        shown.append({**joined, "tool_calls": calls} if calls else joined)
    return shown
