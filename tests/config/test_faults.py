from pathlib import Path
from typing import Any

import pytest
import yaml

from agentrl.config.load import load_config, validate
from agentrl.config.run import RunConfig
from agentrl.errors import ConfigError


def read(folder: Path, *words: str, **tree: Any) -> RunConfig:
    (folder / "run.yaml").write_text(yaml.safe_dump({"model": {"path": "m"}, **tree}))
    return load_config(folder / "run.yaml", words)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"roolout": {}}, "unknown key `roolout`; did you mean 'rollout'"),
        (
            {"rollout": {"failures": {"infra_eror": "drop"}}},
            r"unknown key `rollout\.failures\.infra_eror`; did you mean 'infra_error'",
        ),
        (
            {"rollout": {"sampling": {"temprature": 1}}},
            r"unknown key `rollout\.sampling\.temprature`; did you mean 'temperature'",
        ),
        ({"rollout": {"zzz": 1}}, r"unknown key `rollout\.zzz`; valid keys: .*group_size"),
        (
            {"sandbox": {"type": "docker", "docker": {"imag": "x"}}},
            r"unknown key `sandbox\.docker\.imag`; did you mean 'image'",
        ),
        (
            {"sandbox": {"type": "http", "urls": ["u"], "retrys": 1}},
            r"unknown key `sandbox\.retrys`; did you mean 'retries'",
        ),
        (
            {"sandbox": {"type": "local", "languages": {"ruby": {"fil": "x", "run": ["r"]}}}},
            r"unknown key `sandbox\.languages\.ruby\.fil`; did you mean 'file'",
        ),
        (
            {"sandbox": {"type": "dokcer"}},
            r"`sandbox`: .*'dokcer'.*'docker'",
        ),
        ({"rollout": {"group_size": 0}}, r"`rollout\.group_size`: .*greater than 0, got 0"),
        ({"rollout": {"tool_response_keep": "top"}}, r"tool_response_keep`: .*'left'.*got 'top'"),
        ({"rollout": None}, "`rollout`: .*got None"),
        ({"reward_weights": {"tool": "much"}}, r"`reward_weights\.tool`: .*got 'much'"),
        ({"reward_weights": {"task": 2}}, "'task' has its weight in its entry of `rewards`"),
        ({"reward_weights": {"f": 2}, "rewards": [{"type": "a.py:f"}]}, "'f' has its weight in"),
        ({"reward_weights": {"tol/add": 2}}, r"no source 'tol/add' .*expected one of tool, "),
        ({"reward_weights": {"tool": float("nan")}}, r"`reward_weights\.tool`: .*finite"),
        ({"rewards": [{"type": "a.py:f"}, {"type": "b.f"}]}, "`rewards`: .*source 'f' is taken"),
        ({"rewards": [{"type": "a.py:tool"}]}, "`rewards`: .*source 'tool' is taken"),
        ({"rewards": [{"typo": "task"}]}, r"unknown key `rewards\.0\.typo`; did you mean 'type'"),
        ({"base": ["a.yaml"]}, r"`base` must name one file, got \['a.yaml'\]"),
        ({"base": "nosuch.yaml"}, "config file .*nosuch.yaml: No such file"),
        ({1: {}}, "`1`"),
    ],
)
def test_a_fault_names_its_key_and_the_nearest(
    tmp_path: Path, tree: dict[Any, Any], message: str
) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"model": {"path": "m"}, **tree}))
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "run.yaml")


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.stps.*rollout\.group_size|rollout.*train\.stps"):
        read(tmp_path, train={"stps": 1}, rollout={"group_size": -1})


def test_a_sandbox_section_without_a_type_is_auto(tmp_path: Path) -> None:
    config = read(tmp_path, sandbox={"workers": 3})
    assert config.sandbox.type == "auto"
    assert config.sandbox.workers == 3


def test_bases_of_bases_are_read_from_their_own_folders(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "ground.yaml").write_text("seed: 1\ntrain: {steps: 1}\nname: ground\n")
    (tmp_path / "deep" / "middle.yaml").write_text("base: ground.yaml\ntrain: {steps: 2}\n")
    config = read(tmp_path, base="deep/middle.yaml", name="top")
    assert (config.seed, config.train.steps, config.name) == (1, 2, "top")
    assert config.base_dir == tmp_path


def test_a_list_of_the_overlay_replaces_the_one_below(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("tools: [{class_name: a.B}, {class_name: c.D}]\n")
    assert read(tmp_path, base="base.yaml", tools=[{"class_name": "e.F"}]).tools == [
        {"class_name": "e.F"}
    ]


def test_a_file_that_is_its_own_base_is_a_circle(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="circle"):
        read(tmp_path, base="run.yaml")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("output_dir=a=b", "a=b"),
        ("tools=null", None),
        ("reward_weights={tool: 2.0}", {"tool": 2.0}),
        ("reward_weights.tool=2", {"tool": 2.0}),
        ("rollout.sampling.temperature=0.5", 0.5),
    ],
)
def test_a_word_overrides_with_a_yaml_value(tmp_path: Path, word: str, value: Any) -> None:
    found: Any = read(tmp_path, word).model_dump()
    for name in word.partition("=")[0].removesuffix(".tool").split("."):
        found = found[name]
    assert (str(found) if isinstance(found, Path) else found) == value


def test_the_last_word_on_a_key_holds(tmp_path: Path) -> None:
    assert read(tmp_path, "seed=1", "seed=2", seed=0).seed == 2


def test_what_config_show_prints_reads_back_as_the_same(tmp_path: Path) -> None:
    config = read(tmp_path, sandbox={"type": "bubblewrap"}, reward_weights={"tool": 0.5})
    again = validate(RunConfig, config.model_dump(mode="json"), source="again")
    assert again.model_dump() == config.model_dump()


def test_a_configuration_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        read(tmp_path).seed = 3
