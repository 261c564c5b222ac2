"""One GRPO step with a tool, against TRL's GRPOTrainer in an environment of its own.

    python tests/bench/vs_trl.py [--trl-python PYTHON] [--engine vllm] [--learning]

Both sides train the same policy from the same warm start on the same prompts: 8 prompts of 8
rollouts, dialogues of one or two tool calls, one update a step. They take turns step by step in
one run; the medians after a warm-up are compared, once with a tool that answers after 0.5 s and
once with one that answers at once. `--learning` compares learning curves over several seeds
instead. What both wrote (tokens, calls, rewards) is printed, so that one can see that they did
the same work. The last line is one JSON object.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

# As the `agentrl` program sets it, for both sides; read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from trl_env import TrlProcess, make_environment
from vs_trl_ours import make_policy, train, write_prompts
from vs_trl_problem import Job, Step

CACHE = Path(__file__).resolve().parents[2] / "build" / "vs_trl"
WARM_UP = 2
SLOW_S = 0.5
LEARNING_RATE = 5e-5
STILL = 1e-8
"""The learning rate of timed runs: so small that every step is the same work."""
BLOCK = 5
"""Steps whose mean reward is one point of a learning curve."""
OVERLAP = 0.8
"""The share of points that must lie within the noise for curves to count as overlapping."""


def compare(job: Job, python: Path, engine: str) -> tuple[list[Step], list[Step]]:
    """Run both sides, taking turns step by step."""
    with tempfile.TemporaryDirectory(prefix="vs_trl-") as name:
        job = replace(job, folder=name)
        with TrlProcess(python, job, Path(name)) as trl:
            ours = train(job, trl.step, engine=engine)
    return ours, trl.steps


def bench_step(job: Job, python: Path, engine: str) -> float:
    """Return the median step time of ours over TRL's."""
    ours, theirs = compare(job, python, engine)
    medians = []
    print(f"tool {job.delay_s} s, {job.steps - WARM_UP} steps each")
    for name, steps in (("agentrl", ours[WARM_UP:]), ("TRL", theirs[WARM_UP:])):
        seconds = [step.seconds for step in steps]
        medians.append(statistics.median(seconds))
        work = ", ".join(
            f"{field} {statistics.fmean(getattr(step, field) for step in steps):.3f}"
            for field in ("tokens", "calls", "failed_calls", "reward", "silent_groups")
        )
        print(
            f"  {name}: median {medians[-1]:.3f} s ({min(seconds):.3f} to {max(seconds):.3f}), of "
            f"which rollout {statistics.median(step.rollout_s for step in steps):.3f} s; {work}",
            flush=True,
        )
    return medians[0] / medians[1]


def bench_learning(job: Job, python: Path, engine: str, seeds: int) -> dict[str, float | bool]:
    """Compare mean rewards over several seeds; they overlap when they differ by noise only.

    Both sides see the same prompts in the same step, so each seed gives one difference per point
    of the curves. A point's noise is twice the standard error of its mean difference; the spread
    over seeds is pooled over all points.
    """
    curves: list[list[list[float]]] = [[], []]
    for seed in range(seeds):
        prompts = write_prompts(CACHE, job.steps * job.prompts_per_step, seed=seed)
        sides = compare(replace(job, seed=seed, prompts=str(prompts)), python, engine)
        for curve, steps in zip(curves, sides, strict=True):
            curve.append(_points(steps))
        print(f"seed {seed}: agentrl {_row(curves[0][-1])} | TRL {_row(curves[1][-1])}", flush=True)
    means = [_over_seeds(statistics.fmean, side) for side in curves]
    for name, side, mean in zip(("agentrl", "TRL"), curves, means, strict=True):
        print(f"{name}: mean {_row(mean)}, spread {_row(_over_seeds(statistics.stdev, side))}")
    gaps = [
        [ours - theirs for ours, theirs in zip(*pair, strict=True)]
        for pair in zip(*curves, strict=True)
    ]
    variance = statistics.fmean(_over_seeds(statistics.variance, gaps))
    noise = 2 * (variance / seeds) ** 0.5
    gap = _over_seeds(statistics.fmean, gaps)
    within = sum(abs(value) <= noise for value in gap) / len(gap)
    print(f"difference: mean {_row(gap)}, noise {noise:.2f}")
    return {
        "first_reward_agentrl": round(means[0][0], 3),
        "first_reward_trl": round(means[1][0], 3),
        "last_reward_agentrl": round(means[0][-1], 3),
        "last_reward_trl": round(means[1][-1], 3),
        "mean_gap": round(statistics.fmean(gap), 3),
        "noise": round(noise, 3),
        "points_within_noise": round(within, 3),
        "curves_overlap": abs(statistics.fmean(gap)) <= noise and within >= OVERLAP,
    }


def _over_seeds(
    summary: Callable[[Sequence[float]], float], curves: Sequence[Sequence[float]]
) -> list[float]:
    return [summary(point) for point in zip(*curves, strict=True)]


def _points(steps: Sequence[Step]) -> list[float]:
    rewards = [step.reward for step in steps]
    blocks = [rewards[start : start + BLOCK] for start in range(0, len(rewards), BLOCK)]
    return [statistics.fmean(block) for block in blocks]


def _row(values: Sequence[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="agentrl against TRL, step by step")
    parser.add_argument("--trl-python", type=Path, help="an interpreter that has TRL")
    parser.add_argument("--engine", default="transformers", choices=("transformers", "vllm"))
    parser.add_argument("--trl-continuous-batching", action="store_true")
    parser.add_argument("--steps", type=int, default=10, help="timed steps with the instant tool")
    parser.add_argument("--slow-steps", type=int, default=3, help="timed steps with the slow tool")
    parser.add_argument("--learning", action="store_true", help="compare learning curves instead")
    parser.add_argument("--learning-steps", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    return parser.parse_args()


def main() -> None:
    """Run the bench that was asked for."""
    arguments = read_arguments()
    CACHE.mkdir(parents=True, exist_ok=True)
    python = arguments.trl_python or make_environment(CACHE / "trl-venv")
    job = Job(
        model=str(make_policy(CACHE)),
        prompts="",
        folder="",
        steps=arguments.learning_steps,
        delay_s=0.0,
        learning_rate=LEARNING_RATE,
        seed=0,
        continuous_batching=arguments.trl_continuous_batching,
    )
    if arguments.learning:
        print(json.dumps(bench_learning(job, python, arguments.engine, arguments.seeds)))
        return
    figures = {}
    for name, delay_s, steps in (
        ("slow_tool_vs_trl", SLOW_S, arguments.slow_steps + WARM_UP),
        ("instant_tool_vs_trl", 0.0, arguments.steps + WARM_UP),
    ):
        prompts = write_prompts(CACHE, steps * job.prompts_per_step, seed=0)
        timed = replace(
            job, prompts=str(prompts), steps=steps, delay_s=delay_s, learning_rate=STILL
        )
        figures[name] = round(bench_step(timed, python, arguments.engine), 3)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
