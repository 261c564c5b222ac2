"""`agentrl tool`: list tools, show their schemas, call one by hand."""

from pathlib import Path
from typing import Annotated, Any

import typer

from agentrl.cli.guard import guarded

app = typer.Typer(help="List, inspect and call tools.", no_args_is_help=True)

Source = Annotated[str, typer.Argument(metavar="YAML", help="A tools YAML file.")]
Name = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="A tool in it; its only one if left out.")
]


@app.command("list")
@guarded
def list_tools(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[YAML]...", help="Tools YAML files; the shipped ones if none."),
    ] = None,
) -> None:
    """List tools with their parameters."""
    from rich.console import Console
    from rich.table import Table

    from agentrl.paths import shipped_root
    from agentrl.plugins.registry import load_tools

    shipped = [f"tools/{path.name}" for path in sorted((shipped_root() / "tools").glob("*.yaml"))]
    table = Table("tool", "parameters", "description", "file", box=None)
    for source in sources or shipped:
        for name, tool in load_tools(source).items():
            function = tool.tool_schema.function
            parameters = ", ".join(function.parameters.get("properties", {}))
            table.add_row(name, parameters, function.description, source)
    Console().print(table)


@app.command("schema")
@guarded
def schema(source: Source, name: Name = None) -> None:
    """Print the JSON schema that the model is shown."""
    import json

    typer.echo(json.dumps(_pick(source, name).tool_schema.for_template(), indent=2))


@app.command("run")
@guarded
def run(
    source: Source,
    arguments: Annotated[
        str, typer.Argument(metavar="JSON", help='The call\'s arguments, e.g. \'{"code": "..."}\'.')
    ],
    name: Annotated[str | None, typer.Option("--name", help="Which of the file's tools.")] = None,
    create: Annotated[
        str, typer.Option("--create", help="create_kwargs as JSON, e.g. a ground truth.")
    ] = "{}",
) -> None:
    """Call a tool once, for real, as an episode would; print outcome, response and rewards."""
    import asyncio

    from agentrl.cli.single_call import call_once
    from agentrl.config.sandbox import AutoSandboxConfig
    from agentrl.rollout.services import RunServices

    tool = _pick(source, name)
    parsed, kwargs = _json(arguments, "JSON"), _json(create, "--create")

    async def call() -> tuple[Any, float]:
        services = RunServices(AutoSandboxConfig())
        try:
            return await call_once(tool, parsed, services, create_kwargs=kwargs)
        finally:
            await services.close()

    record, reward = asyncio.run(call())
    typer.echo(f"outcome: {record.outcome} in {record.duration_s * 1000:.0f} ms")
    typer.echo(f"step reward: {record.reward:g}   trajectory reward: {reward:g}")
    if record.metrics:
        typer.echo(f"metrics: {record.metrics}")
    typer.echo(record.response)
    if record.failure:
        typer.echo(record.failure.message, err=True)
    if record.outcome != "ok":
        raise typer.Exit(1)


def _pick(source: str, name: str | None) -> Any:
    from agentrl.errors import ConfigError
    from agentrl.plugins.registry import load_tools

    tools = load_tools(source, Path.cwd())
    if name is None and len(tools) == 1:
        return next(iter(tools.values()))
    if name is None or name not in tools:
        raise ConfigError(f"{source} has the tools {sorted(tools)}; name one, got {name!r}")
    return tools[name]


def _json(text: str, what: str) -> dict[str, Any]:
    import json

    from agentrl.errors import ConfigError

    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{what}: {text!r} is not JSON: {error.msg}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{what}: expected a JSON object, got {text!r}")
    return value
