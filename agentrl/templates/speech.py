"""What is said in a dialogue, as one template writes it: whole dialogues, and single turns.

Everything here is text in which control tokens of content are marked (see `encode`); a policy's
turn is what stands between the generation prompt and the token that ends it. Where history shows a
turn in another way than it was written (thinking dropped, `<think>` in the prompt only), the turn
is put together as the policy would have written it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from agentrl.contracts.call import call_id
from agentrl.contracts.tool import ToolDict
from agentrl.errors import RenderError
from agentrl.templates.encode import ContentEncoder
from agentrl.templates.formats.turn import ToolFormat
from agentrl.templates.recent import Recent
from agentrl.templates.teach import (
    THINK_CLOSE,
    THINK_OPEN,
    Ways,
    adapt,
    plain_message,
    split_thinking,
)
from agentrl.templates.template import ChatTemplate, Shown

_USER: Shown = {"role": "user", "content": "Hi."}
_WORD = "Understood"
_MOST_HEADS = 256
"""Of stub dialogues: one for each set of tools, calls answered and number of the turn."""
_THINK_TAGS = (THINK_OPEN, THINK_CLOSE)
_NEVER_SPOKEN = re.compile(
    r"response|result|output|observation|available|tool_list|user|system|human|assistant|bot"
    r"|image|img|patch|vision|video|audio|media|pad",
    re.IGNORECASE,
)
_EMPTY_THINKING = re.compile(rf"\s*{THINK_OPEN}\s*{THINK_CLOSE}\s*")


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnEnd:
    """How a policy's turn ends: the stop token, and whether it belongs to the turn.

    Where a template writes nothing behind a turn, the next role's token ends it, and is written
    with that role's message.
    """

    token: str
    own: bool


class Speech:
    """One template, taught in given ways, with one tool-call format."""

    def __init__(
        self, template: ChatTemplate, encoder: ContentEncoder, ways: Ways, tool_format: ToolFormat
    ) -> None:
        self.template = template
        self.encoder = encoder
        self.ways = ways
        self.tool_format = tool_format
        self._offered: Recent[list[ToolDict]] = Recent()
        self._heads: Recent[str] = Recent(_MOST_HEADS)

    def text(
        self, messages: Sequence[Shown], tools: Sequence[ToolDict], *, generate: bool = False
    ) -> str:
        """Return the marked text of a dialogue.

        Raises:
            RenderError: the template refuses it.
        """
        marked = [self._marked(plain_message(message)) for message in messages]
        shown, offered = adapt(marked, self._marked_tools(tools), self.ways)
        return self.template.render(shown, offered, generate=generate)

    def turn(self, before: Sequence[Shown], message: Shown, tools: Sequence[ToolDict]) -> str:
        """Return the marked text of a policy's turn that says `message`, stop token included."""
        end = self.ends[bool(message.get("tool_calls"))]
        body = self._body(before, message, tools)
        if end.own and end.token in body:
            body = body.rpartition(end.token)[0]
        return body + end.token

    def answer(self, new: Sequence[Shown], tools: Sequence[ToolDict]) -> str:
        """Return the marked text that follows a turn which `new` answers, its end included.

        It is rendered behind a short stub dialogue, so that its cost is that of `new`.
        """
        stub: list[Shown] = [_USER, self._stub(new)]
        results = new[0]["role"] == "tool"
        key = repr((stub, results, tools))
        head = self._heads.get(key, lambda: self._head(stub, self.ends[results], tools))
        whole = self.text([*stub, *new], tools, generate=True)
        if not whole.startswith(head):
            raise RenderError(f"a {new[0]['role']} message changes how the turn before is written")
        return whole[len(head) :]

    def _head(self, stub: Sequence[Shown], end: TurnEnd, tools: Sequence[ToolDict]) -> str:
        """Return the text of a stub dialogue without the end of its last turn."""
        said = self.text(stub, tools)
        return said.rpartition(end.token)[0] if end.own and end.token in said else said

    def unframed(self, text: str) -> str:
        """Return a turn's text without what the template writes around every answer."""
        before, after = self._frame
        body = text.lstrip()
        body = body.removeprefix(before) if before else text
        return body.removesuffix(after)

    @cached_property
    def _spoken(self) -> frozenset[str]:
        """The control tokens that an assistant's own words may hold.

        Thinking tags, the format's markup, and what else the template names for the assistant's
        use; never what divides turns or stands for a picture, nor a result's frame.
        """
        spoken = frozenset((*_THINK_TAGS, *self.tool_format.markup))
        if self.ways.thinking_key is not None:
            return spoken
        system: Shown = {"role": "system", "content": _WORD}
        told = self.text([system, _USER], self._probe_tools)
        asked = self.text([system, _USER], self._probe_tools, generate=True)
        opening = self.encoder.find(asked, common_prefix(told, asked))
        dividing = {match[0] for match in self.encoder.find_all(told)} - spoken
        dividing |= {self.template.eos_token, *self.tool_format.stops}
        dividing |= {end.token for end in self.ends.values()} - set(self.tool_format.markup)
        dividing |= {opening[0]} if opening else set()
        source = self.template.source
        named = {token for token in self.encoder.control if token in source}
        return spoken | {t for t in named - dividing if not _NEVER_SPOKEN.search(t)}

    @property
    def _probe_tools(self) -> list[ToolDict]:
        return [PROBE_TOOL] if self.ways.native else []

    @cached_property
    def _frame(self) -> tuple[str, str]:
        """The marks around an answer (`<|START_TEXT|>`, say), thinking left aside."""
        said: Shown = {"role": "assistant", "content": _WORD}
        try:
            whole = self.turn([_USER], said, self._probe_tools)
        except RenderError:
            return "", ""
        before, _, after = whole.removesuffix(self.ends[False].token).partition(_WORD)
        parts = (before.strip(), after.strip())
        if any(tag in part for tag in _THINK_TAGS for part in parts):
            return "", ""
        return parts

    @cached_property
    def ends(self) -> dict[bool, TurnEnd]:
        """How a turn ends, by whether it makes calls."""
        answer = self._end_of_answer()
        if not self.ways.native:
            return {False: answer, True: answer}
        try:
            return {False: answer, True: self._end_of_call(answer)}
        except RenderError:
            return {False: answer, True: answer}

    def _marked(self, message: Shown) -> Shown:
        calls = message.get("tool_calls")
        said = {k: v for k, v in message.items() if k not in ("tool_calls", "role")}
        speaks = message["role"] == "assistant" and self.encoder.find(message["content"])
        allowed = self._spoken if speaks else ()
        marked = {"role": message["role"], **self.encoder.mark(said, allowed)}
        return {**marked, "tool_calls": self.encoder.mark(calls)} if calls else marked

    def _marked_tools(self, tools: Sequence[ToolDict]) -> list[ToolDict]:
        if not tools:
            return []
        return self._offered.get(repr(tools), lambda: self.encoder.mark(list(tools)))

    def _stub(self, new: Sequence[Shown]) -> Shown:
        """Return the assistant message that `new` answers: a call for each result, if allowed."""
        results = [message for message in new if message["role"] == "tool"]
        calls = [
            {
                "id": message.get("tool_call_id", call_id(0, i)),
                "type": "function",
                "function": {"name": message.get("name", "probe"), "arguments": {}},
            }
            for i, message in enumerate(results[: self.ways.max_calls])
        ]
        content = "" if calls else _WORD
        return {"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {})}

    def _body(self, before: Sequence[Shown], message: Shown, tools: Sequence[ToolDict]) -> str:
        """Return what the policy wrote to say `message`, and what the template puts behind it."""
        base = self.text(before, tools)
        prompt = self.text(before, tools, generate=True)
        said = self.text([*before, message], tools)
        start = self._turn_start(prompt, said)
        opened, body = prompt[start:], said[start:]
        header = prompt[common_prefix(base, prompt) :]
        if header and start < len(prompt) - len(header):
            # The turns before are written differently now: look for the turn by its header.
            opened, body = "", said[said.rfind(header) + len(header) :]
        if THINK_CLOSE in opened and body.lstrip().startswith(THINK_CLOSE):
            body = body.lstrip().removeprefix(THINK_CLOSE)
        thinking, _ = split_thinking(self._marked(plain_message(message))["content"])
        hidden = bool(thinking) and thinking not in body
        if THINK_OPEN in opened and THINK_CLOSE not in opened and THINK_CLOSE not in body:
            return f"{thinking}\n{THINK_CLOSE}\n\n{body.lstrip(chr(10))}"
        if hidden:
            rest = _EMPTY_THINKING.sub("", body, count=1)
            return f"{THINK_OPEN}\n{thinking}\n{THINK_CLOSE}\n\n{rest.lstrip(chr(10))}"
        return body

    def _turn_start(self, prompt: str, said: str) -> int:
        """Return where the turn begins in `said`: as far as it is the prompt, in whole tokens."""
        at = common_prefix(prompt, said)
        if at == len(prompt):
            return at
        for text in (prompt, said):
            inside = [*self.encoder.find_all(text[max(0, at - 100) : at + 100])]
            offset = max(0, at - 100)
            inside += list(re.finditer("|".join(_THINK_TAGS), text[offset : at + 100]))
            straddling = [m.start() for m in inside if m.start() + offset < at < m.end() + offset]
            at = min([at, *(offset + start for start in straddling)])
        return at

    def _end_of_answer(self) -> TurnEnd:
        said: list[Shown] = [_USER, {"role": "assistant", "content": _WORD}]
        tools = self._probe_tools
        ending = self.text(said, tools).rpartition(_WORD)[2]
        following = self.text([*said, _USER], tools, generate=True).rpartition(_WORD)[2]
        # Some templates write the end of the document behind the end of the last turn.
        always = ending[: common_prefix(ending, following)]
        if closing := self.encoder.find_all(always):
            tokens = [match[0] for match in closing]
            eos = self.template.eos_token
            return TurnEnd(token=eos if eos in tokens else tokens[-1], own=True)
        if own := self._leading_token(ending):
            return TurnEnd(token=own, own=True)
        token = self._leading_token(following) or self.template.eos_token
        return TurnEnd(token=token, own=False)

    def _end_of_call(self, answer: TurnEnd) -> TurnEnd:
        said = [_USER, self._stub([{"role": "tool", "name": "probe"}])]
        tools = [PROBE_TOOL]
        text = self.text(said, tools)
        stripped, tokens = text.rstrip(), []
        while (last := self._last_token(stripped)) is not None:
            stripped = stripped.removesuffix(last).rstrip()
            tokens.append(last)
        if answer.own and answer.token in tokens:
            return answer
        reads = bool(tokens) and self._reads_without(text, tokens[0])
        if reads and tokens[0] not in self.tool_format.markup:
            return TurnEnd(token=tokens[0], own=True)
        result = {"role": "tool", "name": "probe", "tool_call_id": call_id(0, 0), "content": "x"}
        whole = self.text([*said, result], tools, generate=True)
        base = text.rstrip()
        following = whole[len(base) :] if whole.startswith(base) else ""
        if token := self._leading_token(following):
            return TurnEnd(token=token, own=False)
        # The end of the call itself is what a policy stops at, as Apertus does.
        return TurnEnd(token=tokens[0] if reads else self.template.eos_token, own=reads)

    def _reads_without(self, text: str, token: str) -> bool:
        body = text.rstrip().removesuffix(token)
        calls = self.tool_format.parse(body, schemas=PROBE_SCHEMAS).calls
        return any(call.name == "probe" and call.error is None for call in calls)

    def _leading_token(self, text: str) -> str:
        stripped = text.lstrip()
        match = self.encoder.find(stripped)
        return match[0] if match and match.start() == 0 else ""

    def _last_token(self, text: str) -> str | None:
        for match in reversed(self.encoder.find_all(text[-200:])):
            return match[0] if text.endswith(match[0]) else None
        return None


PROBE_SCHEMAS = {
    "probe": {
        "type": "object",
        "properties": {
            "text": {"type": "string", "description": "A text."},
            "number": {"type": "integer", "description": "A number."},
        },
        "required": ["text"],
    }
}
PROBE_TOOL: ToolDict = {
    "type": "function",
    "function": {
        "name": "probe",
        "description": "Probes a place.",
        "parameters": PROBE_SCHEMAS["probe"],
    },
}
"""What templates and formats are tried out with."""


def common_prefix(first: str, second: str) -> int:
    """Return how many characters two texts begin with alike."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[:middle] == second[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
