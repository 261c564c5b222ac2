"""Tool-call formats that vLLM knows, read with vLLM's own parsers.

The rollout trains on what a server would later parse, so a model's own parser is taken as it is.
vLLM's parsers answer broken calls with plain content; here a tool-call token that is left in the
content is a broken call, as in every other format. Of a call that is cut off some of them return
the part they have. vLLM is imported when such a format is chosen, never before.
"""

import importlib.util
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from agentrl.contracts.call import ParsedTurn, Schemas, broken_call, read_call
from agentrl.contracts.tool import ToolCall
from agentrl.errors import ConfigError, RolloutError, boundary, loading
from agentrl.rollout.formats.split import THINK_CLOSE, THINK_OPEN
from agentrl.rollout.formats.turn import call_id
from agentrl.rollout.formats.values import ValueFault, read_json

_MARKER = re.compile(r"tool|function|action|python", re.IGNORECASE)
_NO_MARKER = re.compile(r"^</|end|response|result|output|declaration", re.IGNORECASE)
_REPLY = re.compile(r"response|result|output|declaration", re.IGNORECASE)
_STOPS = ("<|observation|>",)
_OPENING = re.compile(r"(bot|start|begin)\w*_(token|tag|str)$|^bot_token$")


class VllmFormat:
    """One of vLLM's parsers with one tokenizer. Use `open_vllm_format`."""

    def __init__(self, name: str, parser_class: Any, tokenizer: Any) -> None:
        self.name = name
        self._parser_class = parser_class
        self._tokenizer = tokenizer
        self._markers = set(_markers(parser_class(tokenizer), tokenizer))
        added = tokenizer.get_added_vocab()
        self.markup = tuple(t for t in added if _MARKER.search(t) and not _REPLY.search(t))
        self.stops = tuple(t for t in _STOPS if t in added)

    def parse(self, text: str, *, turn: int = 0, schemas: Schemas | None = None) -> ParsedTurn:
        """Split a policy turn into content and calls; many of the parsers need `schemas`."""
        at = _end_of_thinking(text)
        try:
            with boundary(f"vLLM's tool parser {self.name!r}"):
                found = self._extract(text[at:], schemas or {})
                calls = [self._call(call.function) for call in found.tool_calls]
                content = str(found.content or "")
        except RolloutError as error:
            calls, content = [broken_call(f"the tool call cannot be read: {error}")], ""
        if not calls or all(call.error for call in calls):
            content = text[at:]
        if all(call.error is None for call in calls) and self._opens_a_call(content):
            calls.append(broken_call(f"the tool call is not in the format {self.name!r}"))
        numbered = (replace(call, id=call_id(turn, i)) for i, call in enumerate(calls))
        return ParsedTurn(content=(text[:at] + content).strip(), calls=tuple(numbered))

    def _opens_a_call(self, content: str) -> bool:
        return any(marker in content for marker in self._markers)

    def _extract(self, text: str, schemas: Schemas) -> Any:
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

        tools = [
            {"type": "function", "function": {"name": name, "parameters": parameters}}
            for name, parameters in schemas.items()
        ]
        request = ChatCompletionRequest(model="policy", messages=[], tools=tools or None)
        # A parser keeps what it has streamed, so each turn has its own.
        parser = self._parser_class(self._tokenizer, request.tools)
        return parser.extract_tool_calls(text, request)

    def _call(self, function: Any) -> ToolCall:
        try:
            arguments, _ = read_json(str(function.arguments or "{}").strip())
            str(function.name).encode()
        except ValueFault as error:
            why = f"the tool call's arguments are cut off or not valid JSON ({error})"
            return broken_call(why, str(function.name))
        if not isinstance(arguments, dict):
            kind = type(arguments).__name__
            return broken_call(f"the arguments must be an object, got {kind}", str(function.name))
        return read_call(str(function.name), arguments)


def open_vllm_format(name: str, tokenizer: Any, *, own: tuple[str, ...]) -> VllmFormat:
    """Return vLLM's parser of that name for `tokenizer`; `own` are the names that need no vLLM.

    Raises:
        ConfigError: vLLM is not installed, has no parser of that name, or its parser refuses the
            tokenizer.
    """
    ours = ", ".join(own)
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            f"rollout.tool_format {name!r} is none of agentrl's own ({ours}), and vLLM, whose "
            f"parsers are used for all others, is not installed; install agentrl[vllm] or use one "
            f"of agentrl's own"
        )
    with loading("vLLM's tool parsers"):
        from vllm.tokenizers.hf import get_cached_tokenizer
        from vllm.tool_parsers import ToolParserManager

    for logger in ("vllm.tool_parsers", "vllm.parser"):
        # They log a traceback for each call that a policy gets wrong; the policy is told instead.
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    known = ToolParserManager.list_registered()
    if name not in known:
        raise ConfigError(
            f"rollout.tool_format {name!r} is unknown; expected `auto`, one of agentrl's own "
            f"({ours}) or one of vLLM's ({', '.join(known)})"
        )
    try:
        with boundary("it cannot be made"):
            parser_class = ToolParserManager.get_tool_parser(name)
            # A parser looks its tokens up in the whole vocabulary, which is slow to list.
            return VllmFormat(name, parser_class, get_cached_tokenizer(tokenizer))
    except RolloutError as error:
        model = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        raise ConfigError(
            f"rollout.tool_format {name!r}: vLLM's parser refuses the tokenizer of {model!r} "
            f"({error}); expected a vocabulary with the format's special tokens; use the format "
            f"that the model was trained with, or one of agentrl's own ({ours})"
        ) from error


def _markers(parser: Any, tokenizer: Any) -> Iterator[str]:
    """Yield the texts that open a call, by the tokenizer's added tokens and the parser's names."""
    for token in tokenizer.get_added_vocab():
        if _MARKER.search(token) and not _NO_MARKER.search(token):
            yield str(token)
    for holder in (parser, *type(parser).__mro__):
        for key, value in vars(holder).items():
            if isinstance(value, str) and len(value) > 2 and _OPENING.search(key):
                yield value


def _end_of_thinking(text: str) -> int:
    """Return where leading thinking ends; vLLM too cuts it off before it looks for calls."""
    start, close = text.find(THINK_OPEN), text.find(THINK_CLOSE)
    leads = start >= 0 and not text[:start].strip()
    if close >= 0 and (leads or start < 0 or close < start):
        return close + len(THINK_CLOSE)
    return len(text) if leads else 0
