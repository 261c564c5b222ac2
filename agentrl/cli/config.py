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

    from agentrl.algorithms.registry import resolve_algorithm
    from agentrl.config.load import load_config

    resolved = load_config(config, overrides or [])
    algorithm = resolve_algorithm(resolved.algorithm, base=resolved.base_dir)
    tree = resolved.model_copy(update={"algorithm": algorithm}).model_dump(mode="json")
    typer.echo(yaml.safe_dump(tree, sort_keys=False), nl=False)


@app.command("schema")
@guarded
def schema() -> None:
    """Print the JSON Schema of a configuration file, with the shipped algorithms' options."""
    import json

    from agentrl.algorithms.registry import option_schemas
    from agentrl.config.run import RunConfig

    tree = RunConfig.model_json_schema()
    options = option_schemas()
    for option in options:
        tree["$defs"] |= option.pop("$defs", {})
    tree["properties"]["algorithm"] = {"anyOf": options}
    typer.echo(json.dumps(tree, indent=2))
