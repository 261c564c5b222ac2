"""Grade-school math (GSM8K, arXiv:2110.14168): solve it with a program, end with `#### n`.

Data comes from the hub unless `task.train` and `task.test` name JSONL files with the columns
`question` and `answer`. Demonstrations are made from the calculator notes of the training split.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt

from agentrl.config.base import Section
from agentrl.config.load import validate
from agentrl.contracts.sample import Sample
from agentrl.contracts.task import BaseTask, Demonstration, Split
from agentrl.contracts.tool import Services
from agentrl.contracts.trajectory import Trajectory
from agentrl.data.rows import read_rows
from agentrl.errors import ConfigError
from agentrl.plugins.reference import load_plugin
from agentrl.rewards.gsm8k import extract_answer, response_is_correct

HUB = "openai/gsm8k:main"
TOOL = "code_interpreter"


class Gsm8kConfig(Section):
    """The task's `config`."""

    instruction: str = "Compute it with Python, then answer with #### and the number."
    """Appended to every question."""
    demonstrations: NonNegativeInt = 1000
    """At most so many, drawn at random from the solutions that can be turned into programs."""


class Gsm8kTask(BaseTask):
    """GSM8K with a code interpreter."""

    def __init__(
        self, config: dict[str, Any], *, train: str | None, test: str | None, seed: int
    ) -> None:
        super().__init__(config, train=train, test=test, seed=seed)
        self.settings = validate(Gsm8kConfig, config, source="task gsm8k: config")
        self._program_of: Any = load_plugin("solutions.py:program_of", base=Path(__file__).parent)

    def samples(self, split: Split) -> Sequence[Sample]:
        """Read a split, in its own order."""
        return [
            Sample(
                prompt=[self._user(question)],
                index=index,
                data_source="gsm8k",
                ground_truth=truth,
                interaction_kwargs={"ground_truth": truth},
                tools_kwargs={"calc_gsm8k_reward": {"create_kwargs": {"ground_truth": truth}}},
            )
            for index, (question, _, truth) in enumerate(self._rows(split))
        ]

    def demonstrations(self) -> Sequence[Demonstration]:
        """Turn training solutions into dialogues: a program, its output, the answer."""
        rows = self._rows("train")
        random.Random(f"demonstrations {self.seed}").shuffle(rows)
        found: list[Demonstration] = []
        for question, solution, truth in rows:
            if len(found) == self.settings.demonstrations:
                break
            program = self._program_of(solution, truth)
            if program is not None:
                found.append(self._demonstration(question, program.code, program.output, truth))
        return found

    async def score(self, trajectory: Trajectory, services: Services) -> float:
        """Return 1.0 if the last answer is right."""
        return float(response_is_correct(trajectory.answer, trajectory.sample.ground_truth))

    def _rows(self, split: Split) -> list[tuple[str, str, str]]:
        """Return `(question, solution, answer)` of every row."""
        spec = (self.train if split == "train" else self.test) or HUB
        rows = []
        for number, row in enumerate(read_rows(spec, split=split), start=1):
            truth = extract_answer(str(row.get("answer", "")))
            if "question" not in row or truth is None:
                raise ConfigError(
                    f"{spec}, row {number}: expected `question` and an `answer` that ends in "
                    f"'#### n', got the columns {sorted(row)}"
                )
            rows.append((str(row["question"]), str(row["answer"]), truth.replace(",", "")))
        return rows

    def _user(self, question: str) -> dict[str, Any]:
        return {"role": "user", "content": f"{question}\n{self.settings.instruction}"}

    def _demonstration(self, question: str, code: str, output: str, truth: str) -> Demonstration:
        call = {
            "id": "call_0",
            "type": "function",
            "function": {"name": TOOL, "arguments": {"code": code}},
        }
        return Demonstration(
            messages=[
                self._user(question),
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "name": TOOL, "tool_call_id": "call_0", "content": output},
                {"role": "assistant", "content": f"#### {truth}"},
            ],
            tools=(TOOL,),
        )
