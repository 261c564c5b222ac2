"""Which class implements which `algorithm.type`: a name below, or a plugin reference."""

from pathlib import Path
from typing import Any

from agentrl.algorithms.base import RLAlgorithm
from agentrl.algorithms.dr_grpo import DrGRPO
from agentrl.algorithms.grpo import GRPO
from agentrl.algorithms.rloo import RLOO
from agentrl.config.load import validate
from agentrl.config.train import AlgorithmConfig
from agentrl.errors import ConfigError, loading
from agentrl.plugins.reference import load_plugin

ALGORITHMS: dict[str, type[RLAlgorithm]] = {"dr_grpo": DrGRPO, "grpo": GRPO, "rloo": RLOO}


def resolve_algorithm(config: AlgorithmConfig, *, base: Path | None) -> AlgorithmConfig:
    """Return the options as the named class types them, with its defaults.

    Raises:
        ConfigError: no such algorithm, or an option that it does not have.
    """
    kind = _class(config.type, base)
    source = f"algorithm {config.type!r} ({kind.__name__})"
    return validate(kind.Options, config.model_dump(), source=source)


def build_algorithm(options: AlgorithmConfig, *, base: Path | None) -> RLAlgorithm:
    """Return the algorithm that the configuration names.

    Raises:
        ConfigError: as `resolve_algorithm`, or its constructor fails.
    """
    resolved = resolve_algorithm(options, base=base)
    with loading(f"algorithm {options.type!r}"):
        return _class(options.type, base)(resolved)


def option_schemas() -> list[dict[str, Any]]:
    """Return the JSON schemas of the shipped algorithms' options."""
    return [kind.Options.model_json_schema() for kind in ALGORITHMS.values()]


def _class(name: str, base: Path | None) -> type[RLAlgorithm]:
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    if not set(name) & set(".:/"):
        raise ConfigError(
            f"algorithm.type {name!r}: expected one of {sorted(ALGORITHMS)}, or the reference of "
            f"a class of your own, such as path/file.py:Class"
        )
    found = load_plugin(name, base=base)
    if not (isinstance(found, type) and issubclass(found, RLAlgorithm)):
        raise ConfigError(
            f"algorithm.type {name!r}: expected a subclass of agentrl's RLAlgorithm, got {found!r}"
        )
    return found
