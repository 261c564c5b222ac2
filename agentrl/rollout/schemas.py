"""Tools' schemas as chat templates take them."""

from typing import Any

from agentrl.contracts.tool import BaseTool

ToolDict = dict[str, Any]


def schema_dict(tool: BaseTool) -> ToolDict:
    """Return a tool's schema for `tools=`; schema objects of other libraries are taken too."""
    schema: Any = tool.tool_schema
    if hasattr(schema, "for_template"):
        return dict(schema.for_template())
    return dict(schema.model_dump(exclude_unset=True, exclude_none=True))
