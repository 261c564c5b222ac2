"""Finds out how a template is to be talked to, and which format reads its calls back.

Each question is asked by rendering: a template shows something if it does not raise and the words
are in its text. Its own tool prompt is used only where calls that it writes are read back, name and
arguments, by the format in force; else tools are taught in words, which every template can show.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from agentrl.contracts.call import call_id
from agentrl.contracts.tool import ToolDict
from agentrl.errors import ConfigError, RenderError, TemplateError
from agentrl.templates.encode import ContentEncoder
from agentrl.templates.formats.hermes import HermesFormat
from agentrl.templates.formats.registry import (
    AUTO,
    FALLBACK,
    FORMATS,
    choose_format,
    recognise_format,
)
from agentrl.templates.formats.turn import ToolFormat
from agentrl.templates.speech import PROBE_SCHEMAS, PROBE_TOOL, Speech
from agentrl.templates.teach import Ways, split_thinking
from agentrl.templates.template import ChatTemplate, Shown

_log = logging.getLogger(__name__)

_SYSTEM: Shown = {"role": "system", "content": "Sysword."}
_ASK: Shown = {"role": "user", "content": "Askword?"}
_AGAIN: Shown = {"role": "user", "content": "Againword?"}
_ANSWER: Shown = {"role": "assistant", "content": "Answerword."}
_ARGUMENTS: list[dict[str, Any]] = [
    {"text": "naïve – & <b>; [x]", "number": 7},
    {"text": "5", "number": -3},
]


def find_speech(
    template: ChatTemplate, encoder: ContentEncoder, tokenizer: Any, format_name: str
) -> Speech:
    """Return how dialogues are said with this template.

    Raises:
        ConfigError: there is no format of that name.
        TemplateError: the template shows not even a user's message, or the format that was asked
            for does not read what the template writes.
    """
    try:
        words = _found_out(template, encoder, native=False)
        basis, refusal = words.ways, None
    except TemplateError as error:
        # Some templates are for dialogues with tools only.
        basis, refusal = _found_out(template, encoder, native=True).ways, error
    faults = []
    for tool_format in _candidates(format_name, template, tokenizer):
        for counted in (False, True):
            ways = replace(basis, native=True, tool_role=True, counted_ids=counted)
            speech = Speech(template, encoder, ways, tool_format)
            fault = _fault_of_native(speech)
            if not fault:
                return _with_limits(speech)
            faults.append(fault)
    if format_name not in (AUTO, FALLBACK):
        raise TemplateError(
            f"rollout.tool_format {format_name!r} does not fit the chat template of "
            f"{template.name!r}: {faults[0]}; use auto, or name a template that writes calls in "
            f"that form as `model.chat_template`"
        )
    if refusal is not None:
        raise refusal
    if fault := _unread(words, _ARGUMENTS):
        raise TemplateError(
            f"chat template of {template.name!r}: calls are not read back, neither in its own form "
            f"nor in words: {fault}; name another template as `model.chat_template`"
        )
    _log.info("chat template of %r: tools are taught in words: %s", template.name, faults[:1])
    return words


def _candidates(name: str, template: ChatTemplate, tokenizer: Any) -> Iterator[ToolFormat]:
    """Yield the formats to try: the one that was named, or what the template looks like first."""
    if name != AUTO:
        yield choose_format(name, chat_template=template.source, tokenizer=tokenizer)
        return
    likely = recognise_format(template.source)
    try:
        yield choose_format(likely, chat_template=template.source, tokenizer=tokenizer)
    except ConfigError as error:
        _log.info("rollout.tool_format: auto is not %s: %s", likely, error)
    for other in dict.fromkeys(FORMATS.values()):
        yield other()


def _found_out(template: ChatTemplate, encoder: ContentEncoder, *, native: bool) -> Speech:
    """Return the speech that needs the least of a template, natively or in words.

    Raises:
        TemplateError: it cannot show a dialogue even so.
    """
    faults: list[str] = []
    offered = [PROBE_TOOL] if native else []

    def shows(ways: Ways, messages: Sequence[Shown], *more: ToolDict) -> bool:
        tools = [*offered, *more][:1]
        fault = _hidden(Speech(template, encoder, ways, HermesFormat()), messages, tools)
        faults.extend([fault] if fault else [])
        return not fault

    ways = Ways(native=native, thinking_key=_thinking_key(template.source))
    if not shows(ways, [_ASK]):
        ways = replace(ways, parts=True)
        if not shows(ways, [_ASK]):
            raise TemplateError(
                f"chat template of {template.name!r} cannot show a user's message: {faults[0]}; "
                f"name another template as `model.chat_template`"
            )
    if not shows(ways, [_SYSTEM, _ASK, _ANSWER, _AGAIN]):
        ways = replace(ways, system_role=False)
    if not shows(ways, [_ASK, _AGAIN, _ANSWER, _AGAIN]):
        ways = replace(ways, alternate=True)
    called = [_ASK, _calls(*_ARGUMENTS[:1]), _result(0), _ANSWER, _AGAIN]
    if not (shows(ways, called[:3], PROBE_TOOL) and shows(ways, called, PROBE_TOOL)):
        ways = replace(ways, tool_role=False)
    if not shows(ways, called, PROBE_TOOL):
        raise TemplateError(
            f"chat template of {template.name!r} cannot show a dialogue of several turns: "
            f"{faults[-1]}; name another template as `model.chat_template`"
        )
    return Speech(template, encoder, ways, HermesFormat())


def _fault_of_native(speech: Speech) -> str:
    """Return why a template's own tool prompt cannot be used, or nothing."""
    tools = [PROBE_TOOL]
    call, result = _calls(*_ARGUMENTS[:1]), _result(0)
    if fault := _hidden(speech, [_ASK], tools, "probe"):
        return f"it does not show the tools: {fault}"
    for said in ([_ASK, call, result], [_ASK, call, result, _ANSWER, _AGAIN]):
        if fault := _hidden(speech, said, tools):
            return f"it does not show a tool's result: {fault}"
    for arguments in _ARGUMENTS:
        if fault := _unread(speech, [arguments]):
            return fault
    return ""


def _with_limits(speech: Speech) -> Speech:
    """Add what a native template cannot show: two calls a turn, or a result without its call."""
    ways = speech.ways
    parallel = [_ASK, _calls(*_ARGUMENTS), _result(0), _result(1)]
    if _unread(speech, _ARGUMENTS) or _hidden(speech, parallel, [PROBE_TOOL]):
        ways = replace(ways, max_calls=1)
    if _hidden(speech, [_ASK, _ANSWER, _result(0)], [PROBE_TOOL]):
        ways = replace(ways, orphans=False)
    return Speech(speech.template, speech.encoder, ways, speech.tool_format)


def _hidden(
    speech: Speech, messages: Sequence[Shown], tools: Sequence[ToolDict], *words: str
) -> str:
    """Return what of a dialogue the template does not show, or nothing."""
    try:
        text = speech.text(messages, tools, generate=True)
    except RenderError as error:
        return str(error.__cause__ or error)
    # What the assistant said may be dropped: such turns branch.
    heard = [str(m["content"]) for m in messages if m["role"] != "assistant"]
    for word in (*words, *heard):
        if word not in text:
            return f"{word!r} is not in what it writes"
    return ""


def _unread(speech: Speech, arguments: Sequence[dict[str, Any]]) -> str:
    """Return how calls that the template writes differ from what its format reads, or nothing."""
    try:
        written = speech.turn([_ASK], _calls(*arguments), [PROBE_TOOL])
    except RenderError as error:
        return str(error.__cause__ or error)
    end = speech.ends[True].token
    text = speech.encoder.decode(speech.encoder.encode(written)).removesuffix(end)
    text = speech.unframed(text)
    parsed = speech.tool_format.parse(text, schemas=PROBE_SCHEMAS)
    read = [(call.name, call.arguments, call.error) for call in parsed.calls]
    # Markup that stays in the content would be shown a second time, beside the call.
    _, left = split_thinking(parsed.content)
    if read == [("probe", given, None) for given in arguments] and not left.strip():
        return ""
    what = f"{read[0]} and {left!r}" if read else "no call"
    return f"{speech.tool_format.name} reads {text.strip()[-160:]!r} as {what}"


def _calls(*arguments: dict[str, Any]) -> Shown:
    calls = [
        {"id": call_id(0, i), "type": "function", "function": {"name": "probe", "arguments": given}}
        for i, given in enumerate(arguments)
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _result(index: int) -> Shown:
    content = f"Resultword{index}."
    return {"role": "tool", "name": "probe", "tool_call_id": call_id(0, index), "content": content}


def _thinking_key(source: str) -> str | None:
    """Return the field of thinking for templates that refuse it in the content, as gpt-oss's."""
    return "thinking" if '"thinking" in message' in source else None
