"""The interface of a tool-call format."""

from typing import Protocol

from agentrl.contracts.call import ParsedTurn, Schemas


class ToolFormat(Protocol):
    """One way of writing tool calls. Holds no state between turns."""

    @property
    def name(self) -> str:
        """The name that `rollout.tool_format` selects it by."""

    @property
    def markup(self) -> tuple[str, ...]:
        """The control tokens that a call is written with: what a policy's own words may hold."""

    @property
    def stops(self) -> tuple[str, ...]:
        """Tokens that end a turn in this format, beside the template's and the model's."""

    def parse(self, text: str, *, turn: int = 0, schemas: Schemas | None = None) -> ParsedTurn:
        """Split a policy turn into content and calls, in order. Never raises.

        Args:
            text: the turn with its special tokens and without its stop token.
            turn: the number of the policy turn, which the calls' ids are made of.
            schemas: of the offered tools; formats whose values carry no type need them.
        """


def call_id(turn: int, index: int) -> str:
    """Return the id of a turn's call: nine alphanumeric characters, as Mistral's templates ask."""
    return f"call{_base36(turn, 2)}{_base36(index, 3)}"


def _base36(number: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits
