"""The start-up check of a chat template: what it shows by itself, and whether turns extend.

No template is refused for rewriting history or for not knowing of tools; this check says what the
renderer does about it, so that a run's cost and its prompts are no surprise. It raises only where
nothing can work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agentrl.contracts.message import Message
from agentrl.errors import RenderError, TemplateError
from agentrl.rollout.extend import Kind
from agentrl.rollout.render import Renderer
from agentrl.rollout.schemas import ToolDict

_ASK: Message = {"role": "user", "content": "What is 2 + 2?"}
_ANSWER: Message = {"role": "assistant", "content": "It is 4."}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplyReport:
    """How replies of one kind reach the policy; `reason` is empty where they extend."""

    kind: Kind
    reason: str

    @property
    def extends(self) -> bool:
        """Whether a reply only appends; otherwise it begins a branch."""
        return not self.reason


@dataclass(frozen=True, kw_only=True, slots=True)
class TemplateReport:
    """What was found out about a template.

    Attributes:
        name: the model's.
        native: calls have the template's own form; else they are taught in words.
        tool_format: the name of the format that reads calls.
        habits: what is shown in another way than usual, in words.
        replies: by kind.
        stop_tokens: what ends a policy's turn.
    """

    name: str
    native: bool
    tool_format: str
    habits: tuple[str, ...]
    replies: tuple[ReplyReport, ...]
    stop_tokens: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the report as lines to print or log."""
        form = "in the template's own form" if self.native else "taught in words"
        lines = [
            f"chat template of {self.name}: calls {form}, read as {self.tool_format}",
            f"turns end with {', '.join(self.stop_tokens)}",
            *self.habits,
        ]
        for reply in self.replies:
            how = "extends" if reply.extends else f"branches ({reply.reason})"
            lines.append(f"a {reply.kind} reply {how}")
        return lines


def verify_template(
    renderer: Renderer, tools: Sequence[ToolDict], *, users: bool = True
) -> TemplateReport:
    """Check that dialogues with `tools` can be held, and report how.

    `users` adds further user messages, as an interaction would send them.

    Raises:
        TemplateError: the template refuses such a dialogue.
    """
    asked: tuple[tuple[Kind, bool], ...] = (("tool", bool(tools)), ("user", users))
    dialogue = [_ASK, *([_ANSWER, _ASK] if users else [])]
    try:
        renderer.prompt(dialogue, tools)
    except RenderError as error:
        raise TemplateError(str(error)) from error
    replies = tuple(
        ReplyReport(kind=kind, reason=renderer.why_branches(kind, with_tools=bool(tools)))
        for kind, wanted in asked
        if wanted
    )
    # The encoder of text with control tokens is made now, not in the middle of an episode.
    stop_tokens = tuple(renderer.decode_text([i]) for i in renderer.stop_token_ids)
    renderer.prompt([{"role": "user", "content": stop_tokens[0]}], tools)
    return TemplateReport(
        name=renderer.name,
        native=renderer.ways.native,
        tool_format=renderer.tool_format.name,
        habits=tuple(_habits(renderer, with_tools=bool(tools))),
        replies=replies,
        stop_tokens=stop_tokens,
    )


def _habits(renderer: Renderer, *, with_tools: bool) -> list[str]:
    ways = renderer.ways
    said = []
    if with_tools and not ways.native:
        where = "system message" if ways.system_role else "first user message"
        said.append(f"tools are described in the {where}, calls stand in the assistant's text")
    if with_tools and not ways.tool_role:
        said.append("a tool's result is told by the user")
    if with_tools and ways.max_calls is not None:
        said.append(f"it shows {'one call' if ways.max_calls == 1 else ways.max_calls} a turn")
    if not ways.system_role:
        said.append("the system prompt opens the first user message")
    if ways.alternate:
        said.append("neighbouring messages of one role are merged")
    return said
