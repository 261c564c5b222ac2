from pathlib import Path
from typing import Any

import pytest

from agentrl.algorithms.grpo import GRPO
from agentrl.algorithms.registry import build_algorithm, option_schemas, resolve_algorithm
from agentrl.config.load import validate
from agentrl.config.run import RunConfig
from agentrl.errors import ConfigError

OWN = """
from agentrl.algorithms.grpo import GRPO, GRPOConfig


class Options(GRPOConfig):
    min_length: int = 3


class Mine(GRPO):
    Options = Options


class Stranger:
    pass
"""


def config(**algorithm: Any) -> RunConfig:
    return validate(RunConfig, {"model": {"path": "x"}, "algorithm": algorithm}, source="test")


@pytest.mark.parametrize("name", ["grpo", "rloo", "dr_grpo"])
def test_shipped_algorithms_are_built_by_their_names(name: str) -> None:
    assert build_algorithm(config(type=name).algorithm, base=None).options.type == name


def test_a_saved_configuration_holds_every_option_and_resolves_to_itself() -> None:
    read = config(kl={"coefficient": 0.1})
    options = resolve_algorithm(read.algorithm, base=None)
    saved = read.model_copy(update={"algorithm": options}).model_dump(mode="json")["algorithm"]
    assert saved == {
        "type": "grpo",
        "clip_low": 0.2,
        "clip_high": 0.2,
        "kl": {"coefficient": 0.1, "estimator": "k3"},
        "skip_zero_variance": True,
        "scale_by_std": True,
        "aggregation": "token_mean",
    }
    assert resolve_algorithm(config(**saved).algorithm, base=None) == options


def test_a_class_of_ones_own_brings_its_own_options(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    read = config(type="own.py:Mine", min_length=30).algorithm
    algorithm = build_algorithm(read, base=tmp_path)
    assert isinstance(algorithm, GRPO)
    assert algorithm.options.model_dump()["min_length"] == 30
    with pytest.raises(ConfigError, match=r"Mine.*unknown key `min_lenth`.*did you mean 'min_le"):
        build_algorithm(config(type="own.py:Mine", min_lenth=3).algorithm, base=tmp_path)


@pytest.mark.parametrize(
    ("algorithm", "why"),
    [
        ({"type": "ppo"}, r"'ppo': expected one of \['dr_grpo', 'grpo', 'rloo'\]"),
        ({"type": "own.py:Stranger"}, "expected a subclass of agentrl's RLAlgorithm"),
        ({"type": "own.py:Nobody"}, "has no 'Nobody'"),
        ({"type": "rloo", "clip_low": 0.1}, "unknown key `clip_low`"),
        ({"kl": {"estimator": "k9"}}, r"GRPO.*`kl\.estimator`"),
    ],
)
def test_what_is_no_algorithm_or_no_option_is_one_error(
    tmp_path: Path, algorithm: dict[str, Any], why: str
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    with pytest.raises(ConfigError, match=why):
        build_algorithm(config(**algorithm).algorithm, base=tmp_path)


def test_the_schema_shows_the_options_of_shipped_algorithms() -> None:
    assert "normalizer_tokens" in option_schemas()[0]["properties"]
