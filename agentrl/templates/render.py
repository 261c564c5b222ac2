"""From messages to token ids, with the model's own chat template.

Token in, token out: what the policy samples is kept as it is. What answers it is appended where the
template only appends, and otherwise begins a branch: the whole dialogue is rendered again, and the
longest common prefix of tokens stays. Either way the policy reads what the template itself writes.
What a template cannot show is taught (`teach`), and how it wants to be talked to is found out when
the renderer is made (`probe`), so no template is refused for its habits.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agentrl.contracts.message import Message
from agentrl.contracts.tool import ToolDict
from agentrl.errors import RenderError, TemplateError
from agentrl.templates.encode import ContentEncoder
from agentrl.templates.extend import Kind, appended, kind_of, why_not_extended
from agentrl.templates.formats.registry import AUTO
from agentrl.templates.formats.turn import ToolFormat
from agentrl.templates.probe import find_speech
from agentrl.templates.recent import Recent
from agentrl.templates.speech import PROBE_TOOL
from agentrl.templates.teach import Ways
from agentrl.templates.template import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_USER: Message = {"role": "user", "content": "Hi."}


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuation:
    """What a reply (tool or user messages) adds before the next policy turn.

    Attributes:
        kept: how many tokens of the old context stay; all of them where the reply extends it,
            fewer where it begins a branch.
        token_ids: int32, what follows `context[:kept]` up to where the policy is to write.
    """

    kept: int
    token_ids: np.ndarray


class Renderer:
    """Renders with one tokenizer and one chat template.

    Args:
        tokenizer: of transformers.
        chat_template: Jinja text that replaces the tokenizer's own template.
        generation_stop_ids: the end tokens of the model's generation config.
        tool_format: the name of a format, or `auto` for the one that reads the template's calls.

    Raises:
        ConfigError: there is no chat template, or no format of that name.
        TemplateError: the template cannot be used at all, or not with that format.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        chat_template: str | None = None,
        generation_stop_ids: Sequence[int] = (),
        tool_format: str = AUTO,
    ) -> None:
        template = ChatTemplate(tokenizer, chat_template)
        self._encoder = ContentEncoder(tokenizer, template.source)
        self._speech = find_speech(template, self._encoder, tokenizer, tool_format)
        self._reasons: dict[tuple[Kind, bool], str] = {}
        self._prompts: Recent[np.ndarray] = Recent()
        self.name = template.name
        self.template_digest = template.digest
        self.tool_format: ToolFormat = self._speech.tool_format
        self.stop_token_ids = self._stop_ids(tokenizer.eos_token_id, generation_stop_ids)

    @property
    def ways(self) -> Ways:
        """What the template can show by itself."""
        return self._speech.ways

    @property
    def max_calls(self) -> int | None:
        """How many calls of one turn the template can show; None is any number."""
        return self._speech.ways.max_calls

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolDict]) -> np.ndarray:
        """Return the int32 ids of a dialogue, up to where the policy is to write; read-only.

        Raises:
            RenderError: the template refuses the messages.
        """

        def make() -> np.ndarray:
            ids = self._encoder.encode(self._speech.text(messages, tools, generate=True))
            ids.setflags(write=False)
            return ids

        return self._prompts.get(json.dumps([messages, tools], default=str), make)

    def reply(
        self,
        context_ids: np.ndarray,
        before: Sequence[Message],
        new: Sequence[Message],
        tools: Sequence[ToolDict],
    ) -> Continuation:
        """Return what `new` (tool or user messages) adds to a context that ends in a policy turn.

        Args:
            context_ids: all tokens so far, the policy's last turn included.
            before: all messages so far, the policy's last one included.
            new: the messages that answer it.
            tools: those offered.

        Raises:
            RenderError: the template refuses the messages.
        """
        if not self.why_branches(kind_of(new), with_tools=bool(tools)):
            dropped, token_ids = appended(self._speech, int(context_ids[-1]), new, tools)
            return Continuation(kept=len(context_ids) - dropped, token_ids=token_ids)
        text = self._speech.text([*before, *new], tools, generate=True)
        whole = self._encoder.encode(text)
        kept = _common_prefix(np.asarray(context_ids), whole)
        return Continuation(kept=kept, token_ids=whole[kept:])

    def assistant(self, message: Message, tools: Sequence[ToolDict]) -> np.ndarray:
        """Return the int32 ids a policy would have sampled for `message`, stop token included."""
        return self.said([_USER], message, tools)

    def said(
        self, before: Sequence[Message], message: Message, tools: Sequence[ToolDict]
    ) -> np.ndarray:
        """Return the int32 ids a policy would have sampled for `message` behind `before`."""
        return self._encoder.encode(self._speech.turn(before, message, tools))

    def conversation(
        self, messages: Sequence[Message], tools: Sequence[ToolDict]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return `(token_ids, mask)` of a demonstration, one pair per branch.

        The masks (uint8) are 1 on what the assistant says; each of its tokens is trained once, in
        the context in which a policy would have sampled it.

        Raises:
            RenderError: the template refuses the messages, or the assistant says nothing.
        """
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if not turns:
            raise RenderError("a demonstration holds no assistant message; there is none to learn")
        branches = []
        ids = self.prompt(messages[: turns[0]], tools)
        mask = np.zeros(len(ids), dtype=np.uint8)
        for at, following in zip(turns, [*turns[1:], None], strict=True):
            written = self.said(messages[:at], messages[at], tools)
            ids = np.concatenate([ids, written])
            mask = np.concatenate([mask, np.ones(len(written), dtype=np.uint8)])
            if following is None:
                break
            if following == at + 1:
                reply = self._rewritten(ids, messages[: at + 1], tools)
            else:
                reply = self.reply(ids, messages[: at + 1], messages[at + 1 : following], tools)
            if reply.kept < len(ids):
                branches.append((ids, mask))
                ids, mask = ids[: reply.kept], np.zeros(reply.kept, dtype=np.uint8)
            ids = np.concatenate([ids, reply.token_ids])
            mask = np.concatenate([mask, np.zeros(len(reply.token_ids), dtype=np.uint8)])
        return [*branches, (ids, mask)]

    def decode(self, token_ids: Sequence[int] | np.ndarray) -> str:
        """Return the text of a policy turn without its stop token and its template's frame."""
        ids = np.asarray(token_ids, dtype=np.int64)
        if len(ids) and int(ids[-1]) in self.stop_token_ids:
            ids = ids[:-1]
        return self._speech.unframed(self._encoder.decode(ids))

    def why_branches(self, kind: Kind, *, with_tools: bool) -> str:
        """Return why a reply of `kind` begins a branch, or nothing where it extends."""
        key = (kind, with_tools)
        if key not in self._reasons:
            tools = [PROBE_TOOL] if with_tools else []
            self._reasons[key] = why_not_extended(self._speech, kind, tools)
        return self._reasons[key]

    def text(
        self, messages: Sequence[Message], tools: Sequence[ToolDict], *, generate: bool = False
    ) -> str:
        """Render messages as text, in the template's own words."""
        return self._encoder.plain(self._speech.text(messages, tools, generate=generate))

    def decode_text(self, token_ids: Sequence[int] | np.ndarray) -> str:
        """Return the text of any tokens, special ones included."""
        return self._encoder.decode(token_ids)

    def _rewritten(
        self, ids: np.ndarray, before: Sequence[Message], tools: Sequence[ToolDict]
    ) -> Continuation:
        """Return what stands before an assistant message that follows another one."""
        whole = self.prompt(before, tools)
        kept = _common_prefix(ids, whole)
        return Continuation(kept=kept, token_ids=whole[kept:])

    def _stop_ids(self, eos: Any, generation: Sequence[int]) -> tuple[int, ...]:
        control = self._encoder.control
        ends = [end.token for end in self._speech.ends.values()]
        found = [control.get(token) for token in (*ends, *self.tool_format.stops)]
        ids = [i for i in (*found, eos, *generation) if isinstance(i, int)]
        if not ids:
            raise TemplateError(
                f"chat template of {self.name!r} closes turns with no special token, and neither "
                f"the tokenizer nor the generation config names an end token; the policy could "
                f"never stop. Use a template that closes turns with a special token"
            )
        return tuple(dict.fromkeys(ids))


def _common_prefix(first: np.ndarray, second: np.ndarray) -> int:
    length = min(len(first), len(second))
    different = np.flatnonzero(first[:length] != second[:length])
    return int(different[0]) if len(different) else length
