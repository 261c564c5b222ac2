from pathlib import Path

import pytest

from agentrl.config.load import load_config
from agentrl.errors import ConfigError

MINIMAL = "model: {path: m}\n"


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_base_is_overlaid_key_by_key(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "model: {path: m, dtype: float32}\ntrain: {steps: 5}\n")
    path = write(tmp_path, "top.yaml", "base: base.yaml\ntrain: {prompts_per_step: 3}\n")
    config = load_config(path, ["model.dtype=bfloat16", "rollout.group_size=2"])
    assert (config.train.steps, config.train.prompts_per_step) == (5, 3)
    assert (config.model.path, config.model.dtype) == ("m", "bfloat16")
    assert config.rollout.group_size == 2
    assert config.base_dir == tmp_path


def test_a_circle_of_bases_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "base: b.yaml")
    path = write(tmp_path, "b.yaml", "base: a.yaml")
    with pytest.raises(ConfigError, match="circle"):
        load_config(path)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["steps"], "expected key.sub=value"),
        (["name.x=1"], "'name' holds 'run'"),
        (["train.steps=many"], r"`train\.steps`: input should be a valid integer.*got 'many'"),
        (["train.steps=0"], "greater than 0"),
        (["model.pth=x"], r"unknown key `model\.pth`; did you mean 'path'"),
        (["zzz=1"], "unknown key `zzz`; valid keys: algorithm"),
        (["sandbox.type=bubblewrap", "sandbox.slts=2"], r"`sandbox\.slts`; did you mean 'slots'"),
        (["model.builder=x.py:b"], "exactly one of `path`"),
        (["a=[1"], "not valid YAML"),
    ],
)
def test_a_wrong_word_is_one_error(tmp_path: Path, words: list[str], why: str) -> None:
    path = write(tmp_path, "c.yaml", MINIMAL + "name: run\n")
    with pytest.raises(ConfigError, match=why):
        load_config(path, words)


@pytest.mark.parametrize(
    ("text", "why"), [("- 1", "expected a mapping"), ("a: [", "not valid YAML"), ("", "`model`")]
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load_config(write(tmp_path, "c.yaml", text))


def test_an_empty_override_of_a_section_keeps_its_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "c.yaml", MINIMAL), ["sft.optimizer.schedule=cosine"])
    assert config.sft.optimizer.schedule == "cosine"
    assert config.sft.optimizer.learning_rate == 1e-5
