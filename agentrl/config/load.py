"""From a YAML file and `key.sub=value` words to one validated `RunConfig`.

A file may name another with `base: other.yaml`, which is read first and overlaid key by key.
Every fault is one `ConfigError` that names the file, the key, what was expected and got, and the
nearest valid key.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from agentrl.config.run import RunConfig
from agentrl.errors import ConfigError
from agentrl.paths import resolve_path

SectionT = TypeVar("SectionT", bound=BaseModel)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's configuration.

    Raises:
        ConfigError: the file or a word is unreadable, or a key or value is not valid.
    """
    file = resolve_path(path, None)
    tree = _read_with_bases(file, seen=())
    for word in overrides:
        _apply(tree, word)
    tree["base_dir"] = file.resolve().parent
    return validate(RunConfig, tree, source=str(path))


def read_yaml(path: Path, kind: str = "config") -> Any:
    """Parse one YAML file.

    Raises:
        ConfigError: it does not exist or is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{kind} file {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{kind} file {path} is not valid YAML: {error}") from error


def validate(model: type[SectionT], tree: dict[str, Any], *, source: str) -> SectionT:
    """Validate a tree, turning the first fault into one readable `ConfigError`."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        faults = [_describe(model, dict(fault)) for fault in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(dict.fromkeys(faults))) from None


def _read_with_bases(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        raise ConfigError(f"config file {path}: `base` goes round in a circle")
    tree = read_yaml(path) or {}
    if not isinstance(tree, dict):
        raise ConfigError(
            f"config file {path}: expected a mapping of keys, got {type(tree).__name__}"
        )
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"config file {path}: `base` must name one file, got {base!r}")
    return _overlay(
        _read_with_bases(resolve_path(base, path.resolve().parent), (*seen, path)), tree
    )


def _overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _overlay(merged[key], value) if both else value
    return merged


def _apply(tree: dict[str, Any], word: str) -> None:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {word!r}: expected key.sub=value, e.g. train.steps=50")
    *parents, last = key.split(".")
    node = tree
    for name in parents:
        child = node.setdefault(name, {})
        if not isinstance(child, dict):
            raise ConfigError(f"override {word!r}: {name!r} holds {child!r}, not a section")
        node = child
    try:
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {word!r}: the value is not valid YAML: {error}") from error


def _describe(model: type[BaseModel], fault: dict[str, Any]) -> str:
    location, valid = _locate(model, [str(part) for part in fault["loc"]])
    key = ".".join(location)
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(location[-1], valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(sorted(valid))}"
        return f"unknown key `{key}`; {hint}"
    if fault["type"] == "missing":
        return f"missing key `{key}`"
    got = "" if isinstance(fault["input"], dict) else f", got {fault['input']!r}"
    return f"`{key}`: {fault['msg'][0].lower()}{fault['msg'][1:]}{got}"


def _locate(model: type[BaseModel], location: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the keys as the user wrote them, and the valid keys of the section they end in.

    Pydantic puts the tag of a union's member into the location; it is followed and left out.
    """
    sections, keys = [model], []
    for place, part in enumerate(location):
        tagged = [s for s in sections if len(sections) > 1 and part in _tags(s)]
        if tagged:
            sections = tagged
            continue
        keys.append(part)
        if place == len(location) - 1:
            break
        below = [s.model_fields[part].annotation for s in sections if part in s.model_fields]
        if not below:
            continue  # a key of a mapping: its value is still one of `sections`
        sections = [found for annotation in below for found in _sections(annotation)]
    valid = {name for section in sections for name in section.model_fields} - {"base_dir"}
    return keys, sorted(valid)


def _tags(section: type[BaseModel]) -> tuple[Any, ...]:
    field = section.model_fields.get("type")
    return get_args(field.annotation) if field else ()


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]
