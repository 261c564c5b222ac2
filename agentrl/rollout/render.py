"""From messages to token ids, with the model's own chat template.

Token in, token out: the prompt is rendered once; what the policy samples is kept as it is; tool
and user messages are appended as the template's *delta*. A delta is rendered behind a fixed stub
dialogue, so it depends on the new messages alone. That this is what the template itself would
have written is verified at start-up (the prefix test), on text and on tokens.

Templates that know nothing of tools get the schemas in a system message and the calls in the
assistant's content, both in Hermes form.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jinja2.exceptions import TemplateError as JinjaError

from agentrl.contracts.message import Message
from agentrl.contracts.tool import ToolDict
from agentrl.errors import ConfigError, TemplateError
from agentrl.rollout.formats.hermes import format_tool_call
from agentrl.rollout.formats.registry import AUTO, FALLBACK, choose_format
from agentrl.rollout.formats.turn import ToolFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_STUB_USER: Message = {"role": "user", "content": "Hi."}
_STUB_TEXT = "Understood"
_PROBE_TOOL: ToolDict = {
    "type": "function",
    "function": {
        "name": "probe",
        "description": "A probe.",
        "parameters": {"type": "object", "properties": {"x": {"type": "string"}}},
    },
}
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
class Continuation:
    """What a reply adds: `token_ids` (int32) behind the first `kept` tokens of the context."""

    kept: int
    token_ids: np.ndarray


class Renderer:
    """Renders with one tokenizer and one chat template.

    Args:
        tokenizer: of transformers.
        chat_template: Jinja text that replaces the tokenizer's own template.

    Raises:
        ConfigError: there is no chat template.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", *, chat_template: str | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._template: str | None = chat_template
        self.name = str(tokenizer.name_or_path or type(tokenizer).__name__)
        if chat_template is None and not tokenizer.chat_template:
            raise ConfigError(
                f"model {self.name!r} has no chat template, which multi-turn rollouts need; use "
                f"an instruction-tuned model, or name a Jinja file as `model.chat_template`"
            )
        self.native_tools = self._is_native()
        self._stop_text, self._tail = self._turn_end()
        self.stop_token_ids = self._stop_ids()
        self.template_digest = ""
        self.max_calls: int | None = None

    def tool_format(self, name: str) -> ToolFormat:
        """Return the format that `rollout.tool_format` names, for this template.

        Raises:
            ConfigError: there is no such format, or the template cannot show it to the model.
        """
        if self.native_tools:
            return choose_format(name, chat_template=self._template, tokenizer=self._tokenizer)
        if name not in (AUTO, FALLBACK):
            raise ConfigError(
                f"rollout.tool_format {name!r}: the chat template of {self.name!r} shows no tools, "
                f"so calls are taught in Hermes form; use auto or {FALLBACK}, or name a template "
                f"that writes calls in that form as `model.chat_template`"
            )
        return choose_format(FALLBACK, chat_template=None, tokenizer=self._tokenizer)

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolDict]) -> list[int]:
        """Return the ids of a dialogue's beginning, up to where the policy is to write.

        Raises:
            TemplateError: the template refuses the messages.
        """
        try:
            return self._encode(self.text(messages, tools, generate=True))
        except JinjaError as error:
            roles = ", ".join(str(message["role"]) for message in messages)
            raise TemplateError(
                f"chat template of {self.name!r} refuses a prompt of {roles}: {error}; change the "
                f"sample's messages, or name a template that takes them as `model.chat_template`"
            ) from error

    def delta(self, new: Sequence[Message], tools: Sequence[ToolDict]) -> list[int]:
        """Return the ids that follow a policy turn when `new` (tool or user messages) answers it.

        They begin with what the template puts behind the policy's stop token and end with the
        next generation prompt.
        """
        return self._encode(self._tail + self._delta_text(new, tools))

    def reply(
        self,
        context_ids: np.ndarray,
        before: Sequence[Message],
        new: Sequence[Message],
        tools: Sequence[ToolDict],
    ) -> Continuation:
        """Return how `new` (tool or user messages) continues a context."""
        delta = np.asarray(self.delta(new, tools), np.int32)
        return Continuation(kept=len(context_ids), token_ids=delta)

    def assistant(self, message: Message, tools: Sequence[ToolDict]) -> list[int]:
        """Return the ids a policy would have sampled to say `message`, stop token included."""
        return self._encode(self._assistant_text(message, tools) + self._stop_text)

    def conversation(
        self, messages: Sequence[Message], tools: Sequence[ToolDict]
    ) -> tuple[list[int], list[int]]:
        """Return `(token_ids, mask)` of a demonstration; the mask is 1 on the assistant's tokens.

        Made of the pieces that a rollout is made of, so that SFT sees its token boundaries.
        """
        start = next(i for i, m in enumerate(messages) if m["role"] == "assistant")
        ids = self.prompt(messages[:start], tools)
        mask = [0] * len(ids)
        pending: list[Message] = []
        for message in messages[start:]:
            if message["role"] != "assistant":
                pending.append(message)
                continue
            between = self.delta(pending, tools) if pending else []
            written = self.assistant(message, tools)
            ids += between + written
            mask += [0] * len(between) + [1] * len(written)
            pending = []
        return ids, mask

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of a policy turn without its stop token."""
        ids = list(token_ids)
        if ids and ids[-1] in self.stop_token_ids:
            ids.pop()
        return self._decode(ids)

    def text(
        self, messages: Sequence[Message], tools: Sequence[ToolDict], *, generate: bool = False
    ) -> str:
        """Render messages as text, in the template's own words."""
        shown = list(messages)
        if not self.native_tools:
            shown = [_in_plain_words(message) for message in shown]
            if tools:
                shown = _with_system(shown, _describe(tools))
        return self._apply(shown, list(tools) if self.native_tools else [], generate)

    def encode_text(self, text: str) -> list[int]:
        """Tokenise text that already holds its special tokens."""
        return self._encode(text)

    def decode_text(self, token_ids: Sequence[int]) -> str:
        """Return the text of any tokens, special ones included."""
        return self._decode(list(token_ids))

    @property
    def turn_tail(self) -> str:
        """What the template writes between a policy's stop token and the next turn."""
        return self._tail

    def _apply(self, messages: list[Message], tools: list[ToolDict], generate: bool) -> str:
        text = self._tokenizer.apply_chat_template(
            messages,
            tools=tools or None,
            chat_template=self._template,
            add_generation_prompt=generate,
            tokenize=False,
        )
        return str(text)

    def _is_native(self) -> bool:
        """Whether the template shows both the schemas and the assistant's calls."""
        call = {"id": "c0", "type": "function", "function": {"name": "probe", "arguments": {}}}
        try:
            schemas = self._apply([_STUB_USER], [_PROBE_TOOL], generate=True)
            called = self._apply(
                [_STUB_USER, {"role": "assistant", "content": "", "tool_calls": [call]}],
                [],
                generate=False,
            )
        except (JinjaError, TypeError, ValueError):
            return False
        return "probe" in schemas and "probe" in called

    def _turn_end(self) -> tuple[str, str]:
        """Find the stop token's text and what the template writes behind it."""
        end = self._assistant_text_to_end({"role": "assistant", "content": _STUB_TEXT}, ())
        end = end.partition(_STUB_TEXT)[2]
        specials = sorted(
            (t.content for t in self._tokenizer.added_tokens_decoder.values()), key=len
        )
        for token in reversed(specials):
            if token and end.lstrip().startswith(token):
                return token, end.lstrip()[len(token) :]
        eos = self._tokenizer.eos_token
        if eos is None:
            raise TemplateError(
                f"chat template of {self.name!r}: an assistant turn ends in {end!r}, which starts "
                f"with no special token, and the tokenizer has no eos_token; the policy could "
                f"never stop. Use a template that closes turns with a special token"
            )
        return str(eos), end

    def _stop_ids(self) -> tuple[int, ...]:
        ids = [self._tokenizer.convert_tokens_to_ids(self._stop_text), self._tokenizer.eos_token_id]
        return tuple(dict.fromkeys(i for i in ids if isinstance(i, int)))

    def _assistant_text_to_end(self, message: Message, tools: Sequence[ToolDict]) -> str:
        before = self.text([_STUB_USER], tools, generate=True)
        after = self.text([_STUB_USER, message], tools)
        if not after.startswith(before):
            raise TemplateError(
                f"chat template of {self.name!r}: turn 1 (assistant) does not begin with the "
                f"generation prompt; expected {before[-40:]!r} before it, got "
                f"{after[len(before) - 40 : len(before) + 20]!r}. Name a template that keeps it "
                f"as `model.chat_template`"
            )
        return after[len(before) :]

    def _assistant_text(self, message: Message, tools: Sequence[ToolDict]) -> str:
        text = self._assistant_text_to_end(message, tools)
        return text.removesuffix(self._tail).removesuffix(self._stop_text)

    def _delta_text(self, new: Sequence[Message], tools: Sequence[ToolDict]) -> str:
        stub: list[Message] = [_STUB_USER, _stub_assistant(new)]
        before = self.text(stub, tools)
        after = self.text([*stub, *new], tools, generate=True)
        if not after.startswith(before):
            raise TemplateError(
                f"chat template of {self.name!r}: a {new[0]['role']} message rewrites the turns "
                f"before it; name a template that does not as `model.chat_template`"
            )
        return after[len(before) :]

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _decode(self, ids: list[int]) -> str:
        return str(
            self._tokenizer.decode(
                ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )


def _stub_assistant(new: Sequence[Message]) -> Message:
    """Return the assistant message that `new` answers: with a call for each tool message."""
    calls = [
        {
            "id": message.get("tool_call_id", f"call_{i}"),
            "type": "function",
            "function": {"name": message.get("name", "probe"), "arguments": {}},
        }
        for i, message in enumerate(new)
        if message["role"] == "tool"
    ]
    if calls:
        return {"role": "assistant", "content": "", "tool_calls": calls}
    return {"role": "assistant", "content": _STUB_TEXT}


def _in_plain_words(message: Message) -> Message:
    """Put the calls of an assistant message into its content."""
    calls = message.get("tool_calls")
    if not calls:
        return message
    written = [format_tool_call(c["function"]["name"], c["function"]["arguments"]) for c in calls]
    content = "\n".join(filter(None, [message.get("content") or "", *written]))
    return {"role": "assistant", "content": content}


def _describe(tools: Sequence[ToolDict]) -> str:
    return _TOOL_SYSTEM.format(tools="\n".join(json.dumps(t, ensure_ascii=False) for t in tools))


def _with_system(messages: list[Message], text: str) -> list[Message]:
    if messages and messages[0]["role"] == "system":
        first = {"role": "system", "content": f"{messages[0]['content']}\n\n{text}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]
