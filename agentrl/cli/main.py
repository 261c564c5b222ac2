"""The `agentrl` program: its commands and nothing else."""

import os

import typer

from agentrl import __version__
from agentrl.cli import config, doctor, flow, rollout, sandbox, status, tool, train

app = typer.Typer(
    name="agentrl",
    help="Train tool-using agents with reinforcement learning; tools really execute.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("train")(train.train)
app.command("sft")(train.sft)
app.command("eval")(train.evaluate)
app.command("rollout")(rollout.rollout)
app.command("doctor")(doctor.doctor)
app.command("status")(status.status)
app.add_typer(tool.app, name="tool")
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(config.app, name="config")
app.add_typer(flow.app, name="flow")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"agentrl {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Train tool-using agents with reinforcement learning; tools really execute."""


def main() -> None:
    """Run the program."""
    # Read by OpenMP when torch loads: idle workers that spin slow each other down on few cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()
