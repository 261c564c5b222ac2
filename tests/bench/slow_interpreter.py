"""The code interpreter, a second late: what a remote tool is like."""

import asyncio
from typing import Any

from agentrl.contracts.tool import ToolResponse
from agentrl.plugins.reference import load_plugin

WAIT_S = 1.0
CodeInterpreter: Any = load_plugin("tools.code_interpreter.CodeInterpreter")


class SlowInterpreter(CodeInterpreter):
    """Waits, then runs the program."""

    name = "code_interpreter"

    async def execute(
        self, instance_id: str, parameters: dict[str, Any], **kwargs: Any
    ) -> tuple[ToolResponse, float, dict[str, Any]]:
        """Wait, then execute."""
        await asyncio.sleep(WAIT_S)
        result: tuple[ToolResponse, float, dict[str, Any]] = await super().execute(
            instance_id, parameters, **kwargs
        )
        return result
