"""Let the model check an answer to a GSM8K question before it commits to one.

Works as verl's tool of the same name: the state of a trajectory is its last answer and that
answer's reward, a submission that is not better than the one before costs 0.05, and the
trajectory's reward is whether the last answer was right. The ground truth comes with the sample:
`tools_kwargs: {calc_gsm8k_reward: {create_kwargs: {ground_truth: "72"}}}`.
"""

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from agentrl.contracts.tool import BaseTool, ToolResponse, ToolSchema
from agentrl.rewards.gsm8k import answer_is, truth_number

NO_IMPROVEMENT = -0.05


@dataclass(kw_only=True, slots=True)
class Submission:
    """The state of one trajectory."""

    ground_truth: object
    reward: float = 0.0


class Gsm8kTool(BaseTool):
    """Check an answer against the ground truth."""

    def __init__(self, config: dict[str, Any], tool_schema: ToolSchema) -> None:
        super().__init__(config, tool_schema)
        self._instances: dict[str, Submission] = {}

    @override
    async def create(
        self, instance_id: str | None = None, ground_truth: object = None, **kwargs: Any
    ) -> tuple[str, ToolResponse]:
        """Begin a trajectory.

        Raises:
            ValueError: `ground_truth` is missing or holds no number.
        """
        truth_number(ground_truth)
        instance_id, response = await super().create(instance_id)
        self._instances[instance_id] = Submission(ground_truth=ground_truth)
        return instance_id, response

    @override
    async def execute(
        self, instance_id: str, parameters: dict[str, Any], **kwargs: Any
    ) -> tuple[ToolResponse, float, dict[str, Any]]:
        state = self._instances[instance_id]
        answer = str(parameters["answer"])
        reward = float(answer_is(answer, state.ground_truth))
        step_reward = 0.0 if reward > state.reward else NO_IMPROVEMENT
        state.reward = reward
        text = f"The answer {answer!r} has reward {reward}."
        return ToolResponse(text=text), step_reward, {"reward": reward}

    @override
    async def calc_reward(self, instance_id: str, **kwargs: Any) -> float:
        return self._instances[instance_id].reward

    @override
    async def release(self, instance_id: str, **kwargs: Any) -> None:
        self._instances.pop(instance_id, None)
