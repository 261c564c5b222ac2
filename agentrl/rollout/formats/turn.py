"""The interface of a tool-call format."""

from typing import Protocol

from agentrl.contracts.call import ParsedTurn, Schemas


class ToolFormat(Protocol):
    """One way of writing tool calls. Holds no state between turns."""

    @property
    def name(self) -> str:
        """The name that `rollout.tool_format` selects it by."""

    def parse(
        self, text: str, *, id_prefix: str = "call", schemas: Schemas | None = None
    ) -> ParsedTurn:
        """Split a policy turn into content and calls, in order. Never raises.

        Args:
            text: the turn with its special tokens and without its stop token.
            id_prefix: calls are named `{id_prefix}_{index}`.
            schemas: of the offered tools; formats whose values carry no type need them.
        """
