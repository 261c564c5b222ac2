"""An interaction: a user who insists on being thanked.

Name it in a configuration as `interaction: examples/polite_user.yaml`.
"""

from typing import Any

from agentrl import BaseInteraction


class PoliteUser(BaseInteraction):
    """Asks again until the answer says thank you."""

    async def generate_response(
        self, instance_id: str, messages: list[dict[str, Any]], **kwargs: Any
    ) -> tuple[bool, str, float, dict[str, Any]]:
        """Return `(the dialogue is over, what the user says, this turn's reward, extra)`."""
        polite = "thank" in str(messages[-1]["content"]).lower()
        return polite, "You are welcome." if polite else "And what do we say?", float(polite), {}
