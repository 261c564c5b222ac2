"""gpt-oss's turns: messages on channels, of which those to a function are calls.

    <|channel|>analysis<|message|>THOUGHT<|end|>
    <|start|>assistant to=functions.NAME<|channel|>commentary json<|message|>{...}

The analysis becomes leading thinking (`<think>...</think>`) of the content, as other models write
it; the final channel, and commentary to nobody, is the rest.
"""

import re

from agentrl.contracts.call import ParsedTurn, Schemas, broken_call, read_call
from agentrl.contracts.tool import ToolCall
from agentrl.rollout.formats.split import THINK_CLOSE, THINK_OPEN
from agentrl.rollout.formats.turn import call_id
from agentrl.rollout.formats.values import ValueFault, read_json

CHANNEL, MESSAGE, START = "<|channel|>", "<|message|>", "<|start|>"
_EXPECTED = "expected to=functions.NAME<|channel|>commentary json<|message|>{...}"
_NEXT = re.compile(r"(?:<\|end\|>|<\|call\|>|<\|return\|>)?\s*<\|start\|>assistant")
_END = re.compile(r"(?:<\|end\|>|<\|call\|>|<\|return\|>)\s*\Z")
_RECIPIENT = re.compile(r"\bto=(?:functions\.)?([^\s<]+)")


class HarmonyFormat:
    """Reads gpt-oss's turns; the arguments' types are JSON's own."""

    name = "harmony"
    markup: tuple[str, ...] = ()
    stops: tuple[str, ...] = ("<|call|>", "<|return|>")

    def parse(self, text: str, *, turn: int = 0, schemas: Schemas | None = None) -> ParsedTurn:
        """Split a policy turn into content and calls; `schemas` are not needed."""
        thoughts: list[str] = []
        answers: list[str] = []
        calls: list[ToolCall] = []
        for message in _NEXT.split(text):
            header, found, body = _END.sub("", message).partition(MESSAGE)
            recipient = _RECIPIENT.search(header)
            if recipient:
                call = _read_call(recipient[1], body, len(calls), turn, whole=bool(found))
                calls.append(call)
                answers += [message] if call.error else []
            elif not found:
                answers.append(header)
            elif f"{CHANNEL}analysis" in header:
                thoughts.append(body.strip())
            else:
                answers.append(body)
        thinking = "\n".join(filter(None, thoughts))
        lead = f"{THINK_OPEN}\n{thinking}\n{THINK_CLOSE}\n\n" if thinking else ""
        return ParsedTurn(content=(lead + "\n".join(answers)).strip(), calls=tuple(calls))


def _read_call(name: str, body: str, index: int, turn: int, *, whole: bool) -> ToolCall:
    call_name = call_id(turn, index)
    try:
        arguments, end = read_json(body.strip())
    except ValueFault as error:
        why = f"is not valid JSON ({error})" if whole else "is cut off"
        call = broken_call(f"the tool call {why}; {_EXPECTED}", name)
    else:
        if isinstance(arguments, dict) and not body.strip()[end:]:
            call = read_call(name, arguments)
        else:
            call = broken_call(f"the tool call's arguments are not one object; {_EXPECTED}", name)
    return ToolCall(id=call_name, name=call.name, arguments=call.arguments, error=call.error)
