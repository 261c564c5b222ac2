"""The interaction plugin: the user's side of a dialogue.

When the policy ends a turn without calling a tool, the interaction answers: it ends the dialogue
or returns the next user message, with a reward for the turn. The signatures are verl's.
"""

from abc import ABC, abstractmethod
from typing import Any
from uuid import uuid4

from agentrl.contracts.message import Message


class BaseInteraction(ABC):
    """Base of every interaction; one object serves the run, one instance a trajectory."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.name: str = config.get("name", "interaction_agent")

    async def start_interaction(self, instance_id: str | None = None, **kwargs: Any) -> str:
        """Begin a trajectory; `kwargs` are the sample's `interaction_kwargs` without `name`."""
        return instance_id or str(uuid4())

    @abstractmethod
    async def generate_response(
        self, instance_id: str, messages: list[Message], **kwargs: Any
    ) -> tuple[bool, str, float, dict[str, Any]]:
        """Answer the policy: `(should_terminate, content, turn_reward, extra)`."""

    async def calculate_score(self, instance_id: str, **kwargs: Any) -> float:
        """Return the reward for the whole trajectory."""
        return 0.0

    async def finalize_interaction(self, instance_id: str, **kwargs: Any) -> None:
        """Forget the trajectory's state. Always called."""
        return None
