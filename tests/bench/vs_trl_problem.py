"""What both sides of `vs_trl.py` share: the tool, the reward, the budgets, the words they exchange.

TRL runs in an environment of its own, which has no agentrl, so this module imports the standard
library only. A `Job` describes one run of either side; a `Step` is what either side reports of
one GRPO step.
"""

import json
import operator
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

TOOL = "code_interpreter"
MAX_CALLS = 3
BETAS, EPSILON, MAX_GRAD_NORM = (0.9, 0.999), 1e-8, 1.0
"""AdamW's settings, and the norm at which gradients are clipped."""

_PROGRAM = re.compile(r"print\(([0-9]{1,9})(\+|-|\*|//)([0-9]{1,9})\)")
_OPERATORS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One training run: the same for both sides."""

    model: str
    """A Hugging Face folder."""
    prompts: str
    """A .jsonl file of `question` and `answer`, in the order in which steps take them."""
    folder: str
    """Where the run may write."""
    steps: int
    delay_s: float
    """What the tool waits before it answers."""
    learning_rate: float
    seed: int
    prompts_per_step: int = 8
    group_size: int = 8
    max_tokens: int = 256
    """Of one trajectory after its prompt, tool responses included."""
    temperature: float = 1.0
    threads: int = 2
    continuous_batching: bool = False
    """Whether TRL generates by transformers' continuous batching instead of `generate`."""

    def write(self, path: Path) -> None:
        """Save as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Load what `write` saved."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One GRPO step, as either side reports it; means are over the step's trajectories."""

    seconds: float
    reward: float
    tokens: float
    """Tokens that the policy wrote."""
    calls: float
    failed_calls: float
    """The share of calls that could not be executed."""
    silent_groups: float
    """The share of groups whose rewards are all equal."""
    rollout_s: float


def run_program(code: str) -> str:
    """Execute `print(a OPERATOR b)` on whole numbers; anything else is answered with an error."""
    program = _PROGRAM.fullmatch(code.strip())
    if program is None:
        return "error: print one operation on two numbers"
    left, sign, right = program.groups()
    if sign == "//" and int(right) == 0:
        return "error: division by zero"
    return str(_OPERATORS[sign](int(left), int(right)))


def score(printed: Sequence[str], answer: str | None, truth: str) -> float:
    """Return 1.0 if the tool printed the truth and the policy then answered with it."""
    said = answer is not None and answer.strip() == truth
    return float(said and truth in printed)


def read_prompts(job: Job) -> list[dict[str, str]]:
    """Load the problems of a job, in order."""
    lines = Path(job.prompts).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
