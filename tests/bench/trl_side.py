"""TRL's side of `vs_trl.py`, run by the interpreter of TRL's own environment.

    python trl_side.py JOB.json

Trains with GRPOTrainer and its tool loop. Before the first step and after every step it waits for
a line on standard input, so that the two sides can take turns; after every step it writes a line
of JSON to standard output.
"""

import asyncio
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import qwen3_template
from vs_trl_problem import (
    BETAS,
    EPSILON,
    MAX_CALLS,
    MAX_GRAD_NORM,
    TOOL,
    Job,
    Step,
    read_prompts,
    run_program,
    score,
)


class Turns(TrainerCallback):
    """Waits for its turn between steps; the wait is in no step's time."""

    def __init__(self, output: Any) -> None:
        self.rollout_s = 0.0
        self._output = output
        self._resumed = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say that everything is loaded, then wait."""
        self._send({"ready": True})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Report the step that ended; its time includes the logging."""
        if "reward" not in logs:
            return
        step = Step(
            seconds=time.perf_counter() - self._resumed,
            reward=logs["reward"],
            tokens=logs["completions/mean_length"],
            calls=logs["tools/call_frequency"],
            failed_calls=logs["tools/failure_frequency"],
            silent_groups=logs["frac_reward_zero_std"],
            rollout_s=self.rollout_s,
        )
        self._send(asdict(step))

    def _send(self, message: dict[str, Any]) -> None:
        self._output.write(json.dumps(message) + "\n")
        self._output.flush()
        if not sys.stdin.readline():
            sys.exit("standard input was closed: the other side is gone")
        self._resumed = time.perf_counter()


class TimedTrainer(GRPOTrainer):
    """Notes how long the rollout of a step takes."""

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        began = time.perf_counter()
        batch = super()._generate_and_score_completions(inputs)
        self.turns.rollout_s = time.perf_counter() - began
        return batch


def make_tool(delay_s: float) -> Any:
    """Make the tool in the form that TRL runs fastest: async when it waits, else plain."""

    def code_interpreter(code: str) -> str:
        """Runs a Python program and returns what it prints.

        Args:
            code: The program.
        """
        return run_program(code)

    async def waiting(code: str) -> str:
        await asyncio.sleep(delay_s)
        return run_program(code)

    if delay_s == 0:
        return code_interpreter
    waiting.__name__ = TOOL
    waiting.__doc__ = code_interpreter.__doc__
    return waiting


def reward(completions: Any, answer: list[str], **kwargs: Any) -> list[float]:
    """Score every dialogue as the other side does."""
    scores = []
    for messages, truth in zip(completions, answer, strict=True):
        printed = [m["content"] for m in messages if m["role"] == "tool"]
        last = messages[-1]
        answered = last["role"] == "assistant" and not last.get("tool_calls")
        scores.append(score(printed, last["content"] if answered else None, truth))
    return scores


def make_config(job: Job) -> GRPOConfig:
    """Write the job in TRL's words, with the settings that are fastest here."""
    return GRPOConfig(
        output_dir=job.folder,
        max_steps=job.steps,
        per_device_train_batch_size=job.prompts_per_step * job.group_size,
        gradient_accumulation_steps=1,
        num_generations=job.group_size,
        max_completion_length=job.max_tokens,
        max_tool_calling_iterations=MAX_CALLS,
        temperature=job.temperature,
        beta=0.0,
        epsilon=0.2,
        loss_type="dapo",
        scale_rewards="group",
        learning_rate=job.learning_rate,
        lr_scheduler_type="constant",
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        adam_epsilon=EPSILON,
        weight_decay=0.0,
        max_grad_norm=MAX_GRAD_NORM,
        seed=job.seed,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        shuffle_dataset=False,
        use_transformers_continuous_batching=job.continuous_batching,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def main() -> None:
    """Train as the job says."""
    job = Job.read(Path(sys.argv[1]))
    # Whatever a library prints must not get between the lines of the protocol.
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    torch.set_num_threads(job.threads)
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    tokenizer.response_template = qwen3_template
    rows = [
        {"prompt": [{"role": "user", "content": row["question"]}], "answer": row["answer"]}
        for row in read_prompts(job)
    ]
    trainer = TimedTrainer(
        model=AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32),
        reward_funcs=reward,
        args=make_config(job),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        tools=[make_tool(job.delay_s)],
    )
    trainer.turns = Turns(output)
    trainer.add_callback(trainer.turns)
    trainer.train()


if __name__ == "__main__":
    main()
