"""Plugin references: naming a class in YAML and finding it.

A reference is `package.module.Class`, `path/file.py:Class`, or the name of an `agentrl.plugins`
entry point. Relative paths resolve against the folder of the YAML that names them, then against
the shipped root. A dotted reference that no importable package answers is looked up among the
shipped files (`tools.code_interpreter.CodeInterpreter`). Content folders are never on `sys.path`.
"""

import hashlib
import importlib
import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from agentrl.errors import ConfigError, loading
from agentrl.paths import resolve_path, shipped_root

ENTRY_POINT_GROUP = "agentrl.plugins"
_FILE_MODULE = "agentrl_plugin_"
_MODULES: set[str] = set()
"""Modules that plugins were loaded from, besides those of files."""


def load_plugin(reference: str, *, base: Path | None = None) -> Any:
    """Return the object that `reference` names.

    Raises:
        ConfigError: nothing answers to the reference, or its module fails to import.
    """
    if ":" in reference:
        path_text, _, attribute = reference.rpartition(":")
        path = resolve_path(path_text, base)
        if not path.is_file():
            raise ConfigError(f"plugin {reference!r}: no such file {path}")
        return _attribute(_load_file(path), attribute, reference)
    if "." not in reference:
        return _from_entry_point(reference)
    module_name, _, attribute = reference.rpartition(".")
    module = _import(module_name, reference) or _shipped_module(module_name, base)
    if module is None:
        raise ConfigError(
            f"plugin {reference!r}: module {module_name!r} is neither importable nor shipped; "
            f"install its package, or name a file as path/file.py:{attribute}"
        )
    return _attribute(module, attribute, reference)


def is_plugin(module_name: str) -> bool:
    """Whether a plugin was loaded from this module."""
    return module_name.startswith(_FILE_MODULE) or module_name in _MODULES


def _import(name: str, reference: str) -> ModuleType | None:
    """Import a module; None if it is not installed."""
    with loading(f"plugin {reference!r}: its module does not import"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and f"{name}.".startswith(f"{error.name}."):
                return None
            raise ConfigError(
                f"plugin {reference!r}: importing it needs the package {error.name!r}; install it"
            ) from error


def _shipped_module(name: str, base: Path | None) -> ModuleType | None:
    parts = Path(*name.split(".")).with_suffix(".py")
    folders = [shipped_root() / kind for kind in ("tools", "interactions", "tasks")]
    for root in [*([base] if base else []), shipped_root(), *folders]:
        if (root / parts).is_file():
            return _load_file(root / parts)
    return None


def _load_file(path: Path) -> ModuleType:
    path = path.resolve()
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    name = f"{_FILE_MODULE}{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"plugin file {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with loading(f"plugin file {path} does not import"):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]  # else the next reference would find it half made
        raise
    return module


def _from_entry_point(name: str) -> Any:
    found = entry_points(group=ENTRY_POINT_GROUP)
    if name not in found.names:
        raise ConfigError(
            f"plugin {name!r}: expected package.module.Class, path/file.py:Class or an entry "
            f"point of {ENTRY_POINT_GROUP!r}; installed entry points: {sorted(found.names)}"
        )
    plugin = found[name].load()
    _MODULES.add(found[name].module)
    return plugin


def _attribute(module: ModuleType, attribute: str, reference: str) -> Any:
    if not hasattr(module, attribute):
        classes = sorted(n for n, v in vars(module).items() if isinstance(v, type))
        raise ConfigError(
            f"plugin {reference!r}: {getattr(module, '__file__', module.__name__)} has no "
            f"{attribute!r}; its classes are {classes}"
        )
    _MODULES.add(module.__name__)
    return getattr(module, attribute)
