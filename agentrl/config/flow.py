"""Changes to the training loop's graph; `agentrl flow show CONFIG` draws the result."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PositiveInt

from agentrl.config.base import Section


class InsertConfig(Section):
    """A node of the user's own."""

    after: str
    """The node that it is put behind."""
    node: str
    """Plugin reference of a typed function, or of a class whose objects can be called."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the function that are fixed, or of the class."""


class ReplaceConfig(Section):
    """What stands in a node's place; a plugin reference alone will do."""

    node: str
    config: dict[str, Any] = Field(default_factory=dict)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


def _named(value: Any) -> Any:
    return {"node": value} if isinstance(value, str) else value


class FlowConfig(Section):
    """What a user changes in the loop."""

    insert: Annotated[list[InsertConfig], BeforeValidator(_listed)] = Field(default_factory=list)
    """Nodes to add: one mapping, or a list of them in their order."""
    replace: dict[str, Annotated[ReplaceConfig, BeforeValidator(_named)]] = Field(
        default_factory=dict
    )
    """Other functions for nodes, by the node's name."""
    max_refusals: PositiveInt = 1000
    """Groups that filters may refuse in a row before the run ends."""
