"""From tool and interaction YAML (verl's schema) to live plugin objects.

`tools: [{class_name, config, tool_schema?}]`; `interaction: [{name?, class_name, config}]`.
Classes that inherit another library's base, or none, are adapted.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import Field

from agentrl.config.base import Section
from agentrl.config.load import read_yaml, validate
from agentrl.contracts.interaction import BaseInteraction
from agentrl.contracts.tool import BaseTool, ToolSchema
from agentrl.errors import ConfigError, loading
from agentrl.paths import resolve_path
from agentrl.plugins.adapt import adapt_interaction, adapt_tool
from agentrl.plugins.reference import load_plugin
from agentrl.plugins.schema import infer_schema, read_schema

PluginSource = str | list[dict[str, Any]] | None

TOOL_METHODS = ("create", "execute")
INTERACTION_METHODS = ("start_interaction", "generate_response")


class ToolEntry(Section):
    """One entry of `tools:`."""

    class_name: str
    config: dict[str, Any] = Field(default_factory=dict)
    tool_schema: dict[str, Any] | None = None


class InteractionEntry(Section):
    """One entry of `interaction:`."""

    class_name: str
    name: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)


def load_tools(source: PluginSource, base: Path | None = None) -> dict[str, BaseTool]:
    """Build every tool of a YAML file or list, by name, in order.

    Raises:
        ConfigError: an entry, class or schema is wrong, or two tools have one name.
    """
    tools: dict[str, BaseTool] = {}
    for where, folder, raw in _entries(source, "tools", base):
        entry = validate(ToolEntry, raw, source=where)
        tool_class = plugin_class(entry.class_name, TOOL_METHODS, where, folder)
        if entry.tool_schema is None:
            schema = infer_schema(tool_class, where=where)
            _need_schema(tool_class, schema, where)
        else:
            schema = read_schema(entry.tool_schema, where=where)
        known = where if schema else f"{where}, without a `tool_schema`"
        plugin = construct(tool_class, known, entry.config, schema)
        tool = adapt_tool(plugin, schema, where=where)
        if tool.name in tools:
            raise ConfigError(
                f"{where}: a tool named {tool.name!r} is there already "
                f"({type(tools[tool.name]).__name__}); give one another `tool_schema.function.name`"
            )
        tools[tool.name] = tool
    return tools


def load_interactions(source: PluginSource, base: Path | None = None) -> dict[str, BaseInteraction]:
    """Build every interaction of a YAML file or list, by name, in order.

    A missing name is the class's in lower case without `Interaction`, as in verl.

    Raises:
        ConfigError: an entry or class is wrong, or two interactions have one name.
    """
    interactions: dict[str, BaseInteraction] = {}
    for where, folder, raw in _entries(source, "interaction", base):
        entry = validate(InteractionEntry, raw, source=where)
        plugin_type = plugin_class(entry.class_name, INTERACTION_METHODS, where, folder)
        name = entry.name or plugin_type.__name__.removesuffix("Interaction").lower()
        if name in interactions:
            raise ConfigError(
                f"{where}: an interaction named {name!r} is there already; give one another `name`"
            )
        plugin = construct(plugin_type, where, entry.config | {"name": name})
        interactions[name] = adapt_interaction(plugin, name)
    return interactions


def _need_schema(tool_class: type[Any], schema: ToolSchema | None, where: str) -> None:
    own = getattr(tool_class, "get_openai_tool_schema", BaseTool.get_openai_tool_schema)
    if schema is None and own is BaseTool.get_openai_tool_schema:
        raise ConfigError(
            f"{where}: no `tool_schema`, and none can be inferred: annotate `parameters` of "
            f"{tool_class.__name__}.execute with a TypedDict, or write `tool_schema` in the YAML"
        )


def _entries(
    source: PluginSource, key: str, base: Path | None
) -> list[tuple[str, Path | None, dict[str, Any]]]:
    """List `(where, folder for relative references, raw entry)`."""
    if source is None:
        return []
    where, folder, raw = f"`{key}`", base, source
    if isinstance(source, str):
        path = resolve_path(source, base)
        tree = read_yaml(path, kind=key)
        if not isinstance(tree, dict) or set(tree) != {key}:
            got = sorted(map(str, tree)) if isinstance(tree, dict) else type(tree).__name__
            raise ConfigError(f"{source}: expected the one key `{key}`, got {got}")
        where, folder, raw = source, path.resolve().parent, tree[key]
    if not isinstance(raw, list) or not all(isinstance(item, dict) for item in raw):
        raise ConfigError(f"{where}: expected a list of entries with `class_name`, got {raw!r}")
    return [(f"{where} entry {i + 1}", folder, item) for i, item in enumerate(raw)]


def plugin_class(
    reference: str, methods: tuple[str, ...], where: str, base: Path | None
) -> type[Any]:
    """Return the class that a reference names, with the methods it must have.

    Raises:
        ConfigError: it is not there, is no class, or lacks one of `methods`.
    """
    try:
        found = load_plugin(reference, base=base)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    missing = [name for name in methods if not callable(getattr(found, name, None))]
    if not isinstance(found, type) or missing:
        raise ConfigError(
            f"{where}: {reference!r} must be a class with the methods {list(methods)}; "
            + (f"it lacks {missing}" if isinstance(found, type) else f"it is {found!r}")
        )
    return found


PluginT = TypeVar("PluginT")


def construct(plugin: type[PluginT], where: str, *args: Any, **kwargs: Any) -> PluginT:
    """Make an object of a plugin class.

    Raises:
        ConfigError: its constructor raised.
    """
    with loading(f"{where}: {plugin.__name__} does not take its config"):
        return plugin(*args, **kwargs)


def load_callable(
    reference: str, config: Mapping[str, Any], where: str, base: Path | None
) -> Callable[..., Any]:
    """Load a function with some arguments fixed, or an object of a class that can be called.

    Raises:
        ConfigError: there is none, or the class does not take its config.
    """
    found: Callable[..., Any] = load_plugin(reference, base=base)
    if isinstance(found, type):
        return cast(Callable[..., Any], construct(found, where, **config))
    return partial(found, **config) if config else found
