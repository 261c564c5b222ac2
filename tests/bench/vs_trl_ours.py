"""agentrl's side of `vs_trl.py`: the task, its tool, the policy's warm start, and the run.

Everything runs through the product's own `Trainer`; a reporter lets TRL's side take its turn
between two steps.
"""

import asyncio
import json
import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from vs_trl_policy import demonstrations, problems
from vs_trl_problem import (
    BETAS,
    EPSILON,
    MAX_CALLS,
    MAX_GRAD_NORM,
    TOOL,
    Job,
    Step,
    run_program,
    score,
)

from agentrl.config.load import validate
from agentrl.config.run import RunConfig
from agentrl.contracts.sample import Sample
from agentrl.contracts.task import BaseTask, Demonstration, Split
from agentrl.contracts.tool import BaseTool, Services, ToolOutcome, ToolResponse
from agentrl.contracts.trajectory import Termination, Trajectory
from agentrl.data.order import index_at
from agentrl.runs.reporter import Reporter
from agentrl.trainer.trainer import Trainer

SFT_STEPS, SFT_BATCH = 300, 32
HERE = Path(__file__).resolve()
POLICY = HERE.with_name("vs_trl_policy.py")


class Interpreter(BaseTool):
    """Runs a program of one `print`, after a wait."""

    async def execute(
        self, instance_id: str, parameters: dict[str, Any], **kwargs: Any
    ) -> tuple[ToolResponse, float, dict[str, Any]]:
        """Wait as long as the job says, then run the program."""
        if self.config["delay_s"]:
            await asyncio.sleep(self.config["delay_s"])
        return ToolResponse(text=run_program(parameters["code"])), 0.0, {}


class Problems(BaseTask):
    """Demonstrates generated problems; trains on those of a job's file, in its order."""

    def samples(self, split: Split) -> Sequence[Sample]:
        """Return the problems of the training file."""
        if split == "test" or self.train is None:
            return []
        rows = [json.loads(line) for line in Path(self.train).read_text().splitlines()]
        # The trainer shuffles; placed like this, its first draw is the file's first row.
        places = [index_at(i, len(rows), seed=self.seed) for i in range(len(rows))]
        placed = dict(zip(places, rows, strict=True))
        return [
            Sample(
                prompt=[{"role": "user", "content": placed[index]["question"]}],
                index=index,
                ground_truth=placed[index]["answer"],
            )
            for index in range(len(rows))
        ]

    def demonstrations(self) -> Sequence[Demonstration]:
        """Return the teacher's dialogues."""
        return list(demonstrations())

    async def score(self, trajectory: Trajectory, services: Services) -> float:
        """Score the dialogue as TRL's side does."""
        records = trajectory.tool_records
        printed = [record.response for record in records if record.outcome is ToolOutcome.OK]
        answered = trajectory.termination is Termination.ANSWERED
        answer = trajectory.answer if answered else None
        return score(printed, answer, str(trajectory.sample.ground_truth))


class Turns(Reporter):
    """Keeps every step's figures and lets the other side take its turn after each.

    The callback blocks the event loop; no episode is alive between steps.
    """

    def __init__(self, group_trajectories: int, between: Callable[[], None]) -> None:
        self.steps: list[Step] = []
        self._count = group_trajectories
        self._between = between
        self._resumed = time.perf_counter()

    def step_finished(self, step: int, metrics: Any) -> None:
        """Note the step; its time runs from the other side's last turn to here."""
        now = time.perf_counter()
        self.steps.append(
            Step(
                seconds=now - self._resumed,
                reward=metrics["critic/rewards/mean"],
                tokens=metrics["rollout/policy_tokens"] / self._count,
                calls=metrics["tools/calls"] / self._count,
                failed_calls=metrics.get("tools/failure_frequency", 0.0),
                silent_groups=metrics["frac_reward_zero_std"],
                rollout_s=metrics["timing_s/rollout"],
            )
        )
        self._between()
        self._resumed = time.perf_counter()


def make_policy(folder: Path) -> Path:
    """Train the warm start that both sides begin with, unless the folder holds it already."""
    policy = folder / "policy"
    if policy.is_dir():
        return policy
    print(f"training the warm start, once, into {policy} (minutes)", flush=True)
    config = _config(
        model={
            "builder": f"{POLICY}:build",
            "dtype": "float32",
            "device": "cpu",
        },
        task={"class_name": f"{HERE}:Problems", "train": str(write_prompts(folder, 1, seed=0))},
        output_dir=str(folder),
        name=f"sft-{time.time_ns()}",
        sft={
            "steps": SFT_STEPS,
            "batch_size": SFT_BATCH,
            "optimizer": {
                "learning_rate": 2e-3,
                "schedule": "cosine",
                "warmup_steps": 50,
                "betas": [0.9, 0.98],
            },
        },
    )
    trained = Trainer(config).train(sft_only=True).run_dir / "checkpoints" / "step-0"
    shutil.copytree(trained, policy, dirs_exist_ok=True)
    return policy


def write_prompts(folder: Path, count: int, *, seed: int) -> Path:
    """Write the problems of a run, in the order in which both sides draw them."""
    path = folder / f"prompts-{seed}-{count}.jsonl"
    chosen = random.Random(f"prompts {seed}").sample(problems(), count)
    rows = [{"question": p.question, "answer": str(p.answer)} for p in chosen]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def train(job: Job, between: Callable[[], None], *, engine: str) -> list[Step]:
    """Run the job, calling `between` after every step; return the steps."""
    torch.set_num_threads(job.threads)
    turns = Turns(job.prompts_per_step * job.group_size, between)
    config = _config(
        model={"path": job.model, "dtype": "float32", "device": "cpu"},
        task={"class_name": f"{HERE}:Problems", "train": job.prompts},
        output_dir=job.folder,
        name="ours",
        seed=job.seed,
        delay_s=job.delay_s,
        engine={"type": engine},
        rollout={
            "group_size": job.group_size,
            "max_assistant_turns": MAX_CALLS + 1,
            "max_response_tokens": job.max_tokens,
            "sampling": {"temperature": job.temperature},
        },
        train={"steps": job.steps, "prompts_per_step": job.prompts_per_step},
        optimizer={
            "learning_rate": job.learning_rate,
            "betas": list(BETAS),
            "eps": EPSILON,
            "max_grad_norm": MAX_GRAD_NORM,
        },
    )
    Trainer(config, reporter=turns).train()
    return turns.steps


def _config(*, delay_s: float = 0.0, **sections: Any) -> RunConfig:
    tool = {"class_name": f"{HERE}:Interpreter", "config": {"delay_s": delay_s}}
    schema = {"name": TOOL, "parameters": _schema()}
    sections["tools"] = [tool | {"tool_schema": {"type": "function", "function": schema}}]
    sections |= {"eval": {"samples": 0}, "checkpoint": {"every": 0}}
    return validate(RunConfig, sections, source="vs_trl")


def _schema() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"code": {"type": "string"}},
        "required": ["code"],
    }
