"""The parsed turn and the default format, for those who need no other.

The formats themselves, and how one is chosen, are in `agentrl.rollout.formats`.
"""

from agentrl.rollout.formats.hermes import format_tool_call, parse_tool_calls
from agentrl.rollout.formats.turn import ParsedTurn

__all__ = ["ParsedTurn", "format_tool_call", "parse_tool_calls"]
