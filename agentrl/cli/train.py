"""`agentrl train`, `sft` and `eval`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from agentrl.cli.guard import guarded

if TYPE_CHECKING:
    from rich.console import Console

    from agentrl.trainer.trainer import TrainResult

ConfigArgument = Annotated[
    str,
    typer.Argument(metavar="CONFIG", help="A YAML file; shipped ones are found from anywhere."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY.SUB=VALUE", help="Keys to set over the file's."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue from the run's newest checkpoint, if any.")
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        exists=True,
        file_okay=False,
        help="Folder of the policy; the configured model if left out.",
    ),
]
SplitName = Annotated[
    Literal["train", "test"], typer.Option("--split", help="Which samples to take.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        dir_okay=False,
        writable=True,
        help="Add the trajectories to this .jsonl.gz file.",
    ),
]


@guarded
def train(config: ConfigArgument, overrides: Overrides = None, resume: Resume = False) -> None:
    """Train a policy: SFT if the configuration asks for it, then GRPO."""
    _run("train", config, overrides or [], resume=resume)


@guarded
def sft(config: ConfigArgument, overrides: Overrides = None, resume: Resume = False) -> None:
    """Fine-tune on the task's demonstrations only; `train --resume` goes on from there."""
    _run("sft", config, overrides or [], resume=resume)


@guarded
def evaluate(
    config: ConfigArgument,
    overrides: Overrides = None,
    checkpoint: Checkpoint = None,
    split: SplitName = "test",
    output: Output = None,
) -> None:
    """Measure success on the first `eval.samples` of a split."""
    import asyncio

    from rich.console import Console

    from agentrl.cli.display import open_display
    from agentrl.cli.logs import log_to_screen
    from agentrl.cli.once import evaluate_once, write_output
    from agentrl.config.load import load_config

    console = Console()
    log_to_screen(Console(stderr=True))
    with open_display(console) as display:
        resolved = load_config(config, overrides or [])
        evaluation = asyncio.run(
            evaluate_once(resolved, weights=checkpoint, split=split, reporter=display)
        )
    if output is not None:
        write_output(output, evaluation.groups)


def _run(command: str, config: str, overrides: list[str], *, resume: bool) -> None:
    from rich.console import Console

    from agentrl.cli.display import open_display
    from agentrl.cli.logs import log_to_file, log_to_screen
    from agentrl.trainer.trainer import Trainer

    console = Console()
    log_to_screen(Console(stderr=True))
    with open_display(console) as display:
        trainer = Trainer.from_config(config, overrides, resume=resume, reporter=display)
        with log_to_file(trainer.folder.path / "log.jsonl"):
            try:
                result = trainer.train(sft_only=command == "sft")
            except KeyboardInterrupt:
                display.note(
                    f"interrupted after step {trainer.progress.step}; a checkpoint is in "
                    f"{trainer.folder.checkpoints}; go on with: "
                    + shlex.join(["agentrl", command, config, *overrides, "--resume"])
                )
                raise
    _summarise(console, result, [config, *overrides])


def _summarise(console: "Console", result: "TrainResult", words: list[str]) -> None:
    """Say what the run came to and what to do next."""
    console.rule("done")
    if result.success_before is not None and result.success_after is not None:
        console.print(
            f"success on held-out problems: {result.success_before:.1%} before, "
            f"[bold]{result.success_after:.1%} after[/bold] {result.steps} GRPO steps"
        )
    if result.rewarded:
        ran = f"; {result.executions:,} programs ran in the sandbox ({result.isolation})"
        console.print(
            f"{result.rewarded_by_execution:,} of {result.rewarded:,} rewarded trajectories got "
            f"their reward through executed tool calls{ran if result.isolation else ''}",
            highlight=False,
            soft_wrap=True,
        )
    latest = result.run_dir / "checkpoints" / f"step-{result.steps}"
    rollout = shlex.join(["agentrl", "rollout", *words, "--checkpoint", str(latest)])
    console.print(
        f"run folder: {result.run_dir} (metrics.jsonl, traces/, checkpoints/)\n"
        f"look at a dialogue: {rollout}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
