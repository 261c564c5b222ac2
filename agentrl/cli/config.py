"""`agentrl config`: see what a configuration means, and what it may say."""

import typer

from agentrl.cli.guard import guarded
from agentrl.cli.train import ConfigArgument, Overrides

app = typer.Typer(help="Show configurations and their schema.", no_args_is_help=True)


@app.command("show")
@guarded
def show(config: ConfigArgument, overrides: Overrides = None) -> None:
    """Print the resolved configuration, the algorithm's options included, as YAML."""
    import yaml

    from agentrl.config.load import load_config

    resolved = load_config(config, overrides or [])
    try:
        from agentrl.algorithms.registry import resolve_algorithm

        algorithm = resolve_algorithm(resolved.algorithm, base=resolved.base_dir)
        resolved = resolved.model_copy(update={"algorithm": algorithm})
    except ModuleNotFoundError as error:
        _without(error)
    tree = resolved.model_dump(mode="json")
    typer.echo(yaml.safe_dump(tree, sort_keys=False), nl=False)


@app.command("schema")
@guarded
def schema() -> None:
    """Print the JSON Schema of a configuration file, with the shipped algorithms' options."""
    import json

    from agentrl.config.run import RunConfig

    tree = RunConfig.model_json_schema()
    try:
        from agentrl.algorithms.registry import option_schemas

        options = option_schemas()
        for option in options:
            tree["$defs"] |= option.pop("$defs", {})
        tree["properties"]["algorithm"] = {"anyOf": options}
    except ModuleNotFoundError as error:
        _without(error)
    typer.echo(json.dumps(tree, indent=2))


def _without(error: ModuleNotFoundError) -> None:
    typer.echo(
        f"note: {error.name} is not installed, so the algorithm's own options are left out: "
        f"pip install 'agentrl-toolkit[train]'",
        err=True,
    )
