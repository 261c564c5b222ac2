"""`agentrl flow`: see what the training loop is made of."""

from typing import Annotated

import typer

from agentrl.cli.guard import guarded
from agentrl.cli.train import ConfigArgument, Overrides

app = typer.Typer(help="Show the training loop as a graph.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Show the training loop as a graph."""


@app.command("show")
@guarded
def show(
    config: ConfigArgument,
    overrides: Overrides = None,
    mermaid: Annotated[
        bool, typer.Option("--mermaid", help="Print Mermaid's source instead of a table.")
    ] = False,
) -> None:
    """Print the loop of a configuration: what each node reads, from where, and what it makes."""
    from rich.console import Console
    from rich.table import Table

    from agentrl.config.load import load_config
    from agentrl.flow.node import Batch, label
    from agentrl.trainer.graph import grpo

    graph = grpo(load_config(config, overrides or []))
    plan = graph.plan()
    if mermaid:
        typer.echo(graph.mermaid())
        return
    table = Table("node", "runs", "reads", "makes", box=None, pad_edge=False)
    behind = {node.name for stage in plan.per_step for node in stage}
    for name, part in graph.nodes.items():
        if isinstance(part, Batch):
            steps = f"{part.ahead} steps ahead" if part.ahead else "on-policy"
            table.add_row("batch", "", f"{part.n} groups a step, {steps}", "")
            continue
        given = plan.sources[name]
        reads = [f"{label(part.reads[p])} of {source.maker}" for p, source in given.items()]
        made = "may refuse" if part.is_filter else label(part.makes) if part.makes else ""
        runs = "once a step" if name in behind else "once a group"
        table.add_row(name, runs, "\n".join(reads), made)
    Console().print(table)
