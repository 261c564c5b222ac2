"""Tool schemas: reading them, inferring a missing one, and validating a call's arguments.

The JSON Schema of `parameters` is kept whole and used twice: shown to the model, and applied to
each call before `execute`, with every violation listed so that the model can mend all at once.
"""

import inspect
import re
import typing
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator, SchemaError
from pydantic import BaseModel, Field, PydanticUserError, TypeAdapter, ValidationError, create_model
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from agentrl.contracts.tool import FunctionSchema, ToolSchema
from agentrl.errors import ConfigError, loading


def read_schema(raw: Any, *, where: str) -> ToolSchema:
    """Read a schema: YAML, or an object of another library; a function alone is taken too.

    Raises:
        ConfigError: it is not an OpenAI function schema, or `parameters` is not JSON Schema.
    """
    if isinstance(raw, BaseModel):
        raw = raw.model_dump(exclude_unset=True, exclude_none=True)
    if isinstance(raw, Mapping) and "function" not in raw and "name" in raw:
        raw = {"type": "function", "function": raw}
    try:
        schema = ToolSchema.model_validate(raw)
        Draft202012Validator.check_schema(schema.function.parameters)
        _check_references(schema.function.parameters)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        raise ConfigError(
            f"{where}: `tool_schema.{key}`: {fault['msg']}; expected the OpenAI form "
            f"{{type: function, function: {{name, description, parameters}}}}"
        ) from None
    except SchemaError as error:
        path = ".".join(["tool_schema.function.parameters", *map(str, error.path)])
        raise ConfigError(f"{where}: `{path}` is not valid JSON Schema: {error.message}") from None
    except Unresolvable as error:
        raise ConfigError(
            f"{where}: `tool_schema.function.parameters` is not valid JSON Schema: nothing stands "
            f"at the $ref {error.ref!r}; expected one like '#/$defs/Name'"
        ) from None
    return schema


def _check_references(parameters: Mapping[str, Any]) -> None:
    """Look every `$ref` up once, before a model's call does.

    Raises:
        Unresolvable: one points nowhere.
    """
    resource = DRAFT202012.create_resource(parameters)
    resolver = Registry().with_resource("", resource).resolver("")
    found: list[Any] = [parameters]
    while found:
        node = found.pop()
        if isinstance(node, Mapping):
            if isinstance(reference := node.get("$ref"), str):
                resolver.lookup(reference)
            found += node.values()
        elif isinstance(node, list):
            found += node


def infer_schema(tool_class: type[Any], *, where: str) -> ToolSchema | None:
    """Infer a schema from a class: its name, its docstring, and the type of `parameters`.

    `execute(self, instance_id, parameters: Arguments)` annotates `parameters` with a TypedDict
    or a pydantic model; its fields become the JSON Schema (`Annotated[str, Field(
    description=...)]` describes one). None if the annotation says nothing about the arguments.

    Raises:
        ConfigError: the annotation cannot be read.
    """
    with loading(f"{where}: the annotations of {tool_class.__name__}.execute cannot be read"):
        hints = typing.get_type_hints(tool_class.execute, include_extras=True)
    annotation = hints.get("parameters")
    if annotation in (None, dict, str, Any) or typing.get_origin(annotation) is dict:
        return None
    try:
        parameters = TypeAdapter(_as_model(annotation)).json_schema()
    except PydanticUserError as error:
        raise ConfigError(
            f"{where}: no schema can be inferred of {annotation!r}: {error}"
        ) from error
    parameters.pop("title", None)
    for field in parameters.get("properties", {}).values():
        field.pop("title", None)
        if field.get("default", ...) is None:
            del field["default"]
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", tool_class.__name__).lower()
    description = inspect.cleandoc(tool_class.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    return ToolSchema(
        function=FunctionSchema(
            name=name.removesuffix("_tool"), description=description, parameters=parameters
        )
    )


def _as_model(annotation: Any) -> Any:
    """Turn a TypedDict into a model: pydantic reads those of `typing` from Python 3.12 on only."""
    if not typing.is_typeddict(annotation):
        return annotation
    fields: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(annotation, include_extras=True).items():
        if typing.get_origin(hint) in (typing.Required, typing.NotRequired):
            (hint,) = typing.get_args(hint)
        required = name in annotation.__required_keys__
        fields[name] = (hint, ... if required else Field(default_factory=lambda: None))
    return create_model(annotation.__name__, **fields)


def violations(schema: ToolSchema, arguments: Mapping[str, Any]) -> list[str]:
    """List everything that is wrong with a call's arguments; empty when they are valid."""
    validator = Draft202012Validator(schema.function.parameters)
    faults = sorted(validator.iter_errors(dict(arguments)), key=lambda f: list(map(str, f.path)))
    return [f"{'.'.join(map(str, fault.path)) or 'arguments'}: {fault.message}" for fault in faults]
