"""A tool in twenty lines: a die whose rolls belong to the dialogue.

agentrl tool run examples/dice.yaml '{"sides": 6}'
"""

import random
from typing import Annotated, Any, TypedDict

from pydantic import Field

from agentrl import BaseTool, ToolError, ToolResponse


class Arguments(TypedDict):
    """What the model may pass; the JSON schema is made from it."""

    sides: Annotated[int, Field(description="How many sides the die has.")]


class Dice(BaseTool):
    """Rolls a die and returns the number on top."""

    async def execute(
        self, instance_id: str, parameters: Arguments, **kwargs: Any
    ) -> tuple[ToolResponse, float, dict[str, Any]]:
        """Roll once."""
        if parameters["sides"] < 2:
            raise ToolError("a die has at least 2 sides")
        return ToolResponse(text=str(random.randint(1, parameters["sides"]))), 0.0, {}
