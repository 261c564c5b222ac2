"""A teacher who says whether a GSM8K answer is right, until it is or the attempts run out.

The policy's last `#### n` is judged. The trajectory's score is whether the last answer was right,
and the turn's reward is 0 (or a cost for each wrong answer), so that nothing is counted twice.
The ground truth comes with the sample: `interaction_kwargs: {name: gsm8k, ground_truth: "72"}`.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import NonNegativeFloat, PositiveInt
from typing_extensions import override

from agentrl.config.base import Section
from agentrl.config.load import validate
from agentrl.contracts.interaction import BaseInteraction
from agentrl.contracts.message import Message
from agentrl.rewards.gsm8k import extract_answer, response_is_correct, truth_number


class Gsm8kInteractionConfig(Section):
    """The `config` of the interaction's YAML entry."""

    name: str = "gsm8k"
    max_attempts: PositiveInt = 4
    """Answers the policy may give; the last wrong one ends the dialogue."""
    wrong_answer_cost: NonNegativeFloat = 0.0
    """Subtracted as the turn's reward for each wrong answer."""
    correct: str = "Correct!"
    incorrect: str = "Incorrect! Try again."
    no_answer: str = "I see no answer. End with `#### ` and the number."


@dataclass(kw_only=True, slots=True)
class Attempts:
    """The state of one trajectory."""

    ground_truth: object
    count: int = 0
    correct: bool = False


class Gsm8kInteraction(BaseInteraction):
    """Feedback on each answer."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.settings = validate(Gsm8kInteractionConfig, config, source="interaction: config")
        self._instances: dict[str, Attempts] = {}

    @override
    async def start_interaction(
        self, instance_id: str | None = None, ground_truth: object = None, **kwargs: Any
    ) -> str:
        """Begin a trajectory.

        Raises:
            ValueError: `ground_truth` is missing or holds no number.
        """
        truth_number(ground_truth)
        instance_id = await super().start_interaction(instance_id)
        self._instances[instance_id] = Attempts(ground_truth=ground_truth)
        return instance_id

    @override
    async def generate_response(
        self, instance_id: str, messages: list[Message], **kwargs: Any
    ) -> tuple[bool, str, float, dict[str, Any]]:
        state = self._instances[instance_id]
        contents = [m.get("content") for m in messages if m.get("role") == "assistant"]
        response = str((contents or [""])[-1] or "")
        state.count += 1
        state.correct = response_is_correct(response, state.ground_truth)
        extra = {"attempt": state.count, "correct": state.correct}
        if state.correct:
            return True, self.settings.correct, 0.0, extra
        answered = extract_answer(response) is not None
        text = self.settings.incorrect if answered else self.settings.no_answer
        last = state.count >= self.settings.max_attempts
        return last, text, -self.settings.wrong_answer_cost, extra

    @override
    async def calculate_score(self, instance_id: str, **kwargs: Any) -> float:
        return float(self._instances[instance_id].correct)

    @override
    async def finalize_interaction(self, instance_id: str, **kwargs: Any) -> None:
        self._instances.pop(instance_id, None)
