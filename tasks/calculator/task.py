"""Word problems that the policy solves by writing a program and reading what it prints.

The demonstrations that warm the policy up are a careless teacher's: well formed, but often with
the last operator confused with another one. What is left to reinforcement learning is to find
out, from executed programs alone, which operator a text asks for.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt

from agentrl.config.base import Section
from agentrl.config.load import validate
from agentrl.contracts.sample import Sample
from agentrl.contracts.task import BaseTask, Demonstration, Split
from agentrl.contracts.tool import Services, ToolOutcome
from agentrl.contracts.trajectory import Termination, Trajectory
from agentrl.errors import ConfigError
from agentrl.plugins.reference import load_plugin
from agentrl.rewards.gsm8k import answer_is

Share = Annotated[float, Field(ge=0, le=1)]
TOOL = "code_interpreter"


class CalculatorConfig(Section):
    """The task's `config`."""

    train_problems: PositiveInt = 4000
    test_problems: PositiveInt = 400
    demonstrations: NonNegativeInt = 4000
    two_step_share: Share = 0.5
    wrong_share: dict[str, Share] = Field(
        default_factory=lambda: {"+": 0.25, "-": 0.25, "*": 0.7, "//": 0.7}
    )
    """By the last operator: the share of demonstrations that use another one instead."""


class CalculatorTask(BaseTask):
    """One- and two-step problems; the test split holds out templates and numbers."""

    def __init__(
        self, config: dict[str, Any], *, train: str | None, test: str | None, seed: int
    ) -> None:
        super().__init__(config, train=train, test=test, seed=seed)
        if train or test:
            raise ConfigError("task calculator generates its problems: leave out train and test")
        self.settings = validate(CalculatorConfig, config, source="task calculator: config")
        self._generate: Any = load_plugin("problems.py:generate", base=Path(__file__).parent)

    def samples(self, split: Split) -> Sequence[Sample]:
        """Generate the problems of a split."""
        held_out = split == "test"
        count = self.settings.test_problems if held_out else self.settings.train_problems
        return [
            Sample(
                prompt=[{"role": "user", "content": problem.question}],
                index=index,
                data_source="calculator",
                ground_truth=str(problem.answer),
                extra_info={"steps": len(problem.operators)},
            )
            for index, problem in enumerate(self._problems(count, held_out=held_out))
        ]

    def demonstrations(self) -> Sequence[Demonstration]:
        """Return the careless teacher's dialogues on training problems.

        Raises:
            ConfigError: `wrong_share` leaves out an operator.
        """
        rng = random.Random(f"teacher {self.seed}")
        return [
            self._demonstration(problem, wrong=rng.random() < self._wrong_share(problem))
            for problem in self._problems(self.settings.demonstrations, held_out=False)
        ]

    async def score(self, trajectory: Trajectory, services: Services) -> float:
        """Return 1.0 if an executed program printed the answer and the policy then gave it."""
        truth = trajectory.sample.ground_truth
        printed = any(
            record.outcome is ToolOutcome.OK
            and record.metrics.get("status") == "ok"
            and answer_is(record.response, truth)
            for record in trajectory.tool_records
        )
        answered = trajectory.termination is Termination.ANSWERED
        return float(printed and answered and answer_is(trajectory.answer, truth))

    def _problems(self, count: int, *, held_out: bool) -> list[Any]:
        share = self.settings.two_step_share
        return list(
            self._generate(held_out=held_out, count=count, seed=self.seed, two_step_share=share)
        )

    def _wrong_share(self, problem: Any) -> float:
        operator = problem.operators[-1]
        if operator not in self.settings.wrong_share:
            raise ConfigError(f"task calculator: `wrong_share` has no entry for {operator!r}")
        return self.settings.wrong_share[operator]

    def _demonstration(self, problem: Any, *, wrong: bool) -> Demonstration:
        code, printed = problem.wrong_program, str(problem.wrong_answer)
        if not wrong:
            code, printed = problem.program, str(problem.answer)
        function = {"name": TOOL, "arguments": {"code": code}}
        call = {"id": "call_0", "type": "function", "function": function}
        return Demonstration(
            messages=[
                {"role": "user", "content": problem.question},
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "name": TOOL, "tool_call_id": "call_0", "content": printed},
                {"role": "assistant", "content": printed},
            ],
            tools=(TOOL,),
        )
