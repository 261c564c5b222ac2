"""`agentrl rollout`: a few dialogues, printed turn by turn."""

from typing import Annotated

import typer

from agentrl.cli.guard import guarded
from agentrl.cli.train import Checkpoint, ConfigArgument, Output, Overrides, SplitName


@guarded
def rollout(
    config: ConfigArgument,
    overrides: Overrides = None,
    checkpoint: Checkpoint = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Samples to roll out.")] = 1,
    split: SplitName = "test",
    output: Output = None,
) -> None:
    """Roll out samples with the configured tools and print the dialogues."""
    import asyncio
    from functools import partial

    from rich.console import Console

    from agentrl.cli.logs import log_to_screen
    from agentrl.cli.once import roll_out_samples, write_output
    from agentrl.config.load import load_config
    from agentrl.traces.transcript import transcript

    stderr = Console(stderr=True)
    log_to_screen(stderr)
    resolved = load_config(config, overrides or [])
    say = partial(stderr.print, markup=False)
    groups = asyncio.run(
        roll_out_samples(resolved, weights=checkpoint, split=split, count=count, say=say)
    )
    console = Console()
    for group in groups:
        for trajectory in group.trajectories:
            console.rule(trajectory.id)
            console.print(transcript(trajectory), markup=False, highlight=False, soft_wrap=True)
    if output is not None:
        write_output(output, groups)
        console.print(f"{len(groups)} trajectories written to {output}", markup=False)
