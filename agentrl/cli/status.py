"""`agentrl status`: what a run does, and what it waits for."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from agentrl.cli.guard import guarded


@guarded
def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say where a run stands, whether it is alive, and who has waited longest for what."""
    from rich.console import Console
    from rich.table import Table

    from agentrl.errors import ConfigError
    from agentrl.watch.status import STATUS, Status, is_alive

    if not (run / "config.yaml").exists():
        raise ConfigError(f"{run}: expected a run's folder, with its config.yaml; see runs/")
    found, alive = Status.read(run), is_alive(run)
    if found is None:
        raise ConfigError(f"{run}: no {STATUS} yet; a run writes it once it trains")
    age_s = max(time.time() - found.time, 0.0)
    if as_json:
        typer.echo(json.dumps(found.model_dump() | {"alive": alive, "age_s": round(age_s, 1)}))
        return
    state = f"alive (process {found.pid})" if alive else "not running"
    console = Console()
    console.print(f"{run}: {state}; {found.phase}, {found.step} steps; seen {age_s:.0f} s ago")
    if found.loop_held_by:
        console.print(f"the event loop is held by {found.loop_held_by}")
    if not alive or not found.waits:
        return
    table = Table("waited", "of at most", "for", "who", box=None, pad_edge=False)
    for wait in found.waits:
        most = f"{wait.deadline_s:.0f} s" if wait.deadline_s else "-"
        table.add_row(f"{wait.age_s:.0f} s", most, wait.resource, wait.waiter)
    console.print(table)
    if found.num_waits > len(found.waits):
        console.print(f"and {found.num_waits - len(found.waits)} more")
    for resource, remedy in {wait.resource: wait.remedy for wait in found.waits}.items():
        console.print(f"should it last ({resource}): {remedy}")
