from pathlib import Path
from typing import Any

import pytest
import torch

from agentrl.config.run import ModelConfig
from agentrl.errors import ConfigError, NotReadyError
from agentrl.learner import models
from agentrl.learner.models import (
    Model,
    chat_template,
    choose_device,
    choose_dtype,
    generation_stop_ids,
    load_model,
    load_tokenizer,
    open_reference,
)
from agentrl.plugins.reference import load_plugin


def load(**keys: Any) -> Model:
    return load_model(ModelConfig(**keys), base=None, seed=0)


@pytest.fixture
def saved(tmp_path: Path, tiny_policy: str) -> Path:
    """A model folder in the Hugging Face layout."""
    load(builder=tiny_policy, device="cpu").save(tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_policy_loads_as_it_was(saved: Path, tiny_policy: str) -> None:
    policy = load(path=str(saved), device="cpu", dtype="float32")
    original = load_plugin(tiny_policy)(0)[0].state_dict()
    assert all(v.equal(original[name]) for name, v in policy.model.state_dict().items())
    assert policy.max_tokens == 1024
    assert policy.tokenizer.chat_template


def test_the_seed_decides_a_built_policy(tiny_policy: str) -> None:
    config = ModelConfig(builder=tiny_policy, device="cpu")
    one, same, other = (
        load_model(config, base=None, seed=seed).model.state_dict() for seed in (1, 1, 2)
    )
    name = "model.embed_tokens.weight"
    assert one[name].equal(same[name])
    assert not one[name].equal(other[name])


def test_a_bfloat16_policy_is_bfloat16_throughout(saved: Path, tiny_policy: str) -> None:
    for source in ({"path": str(saved)}, {"builder": tiny_policy}):
        policy = load(**source, device="cpu", dtype="bfloat16")
        assert {p.dtype for p in policy.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("path", ["/no/such/model", "./nothing", "a/b/c"])
def test_a_model_folder_that_is_missing_is_named(path: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.path '{path}': no such folder"):
        load(path=path, device="cpu")


def test_a_folder_without_a_model_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a model folder nor"):
        load(path=str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b"torn"),
        ("config.json", b"{"),
        ("config.json", b'{"model_type": "no-such-model"}'),
        ("tokenizer.json", b"{}"),
    ],
)
def test_a_damaged_model_folder_is_one_error(saved: Path, file: str, content: bytes) -> None:
    (saved / file).write_bytes(content)
    with pytest.raises(ConfigError, match=str(saved)):
        load(path=str(saved), device="cpu")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("raise OSError('no weights today')", "no weights today"),
        ("return 7", "expected .model, tokenizer."),
        ("return 'model', 'tokenizer'", "expected .model, tokenizer."),
    ],
)
def test_a_builder_that_gives_no_policy_is_one_error(tmp_path: Path, body: str, why: str) -> None:
    (tmp_path / "builder.py").write_text(f"def build(seed):\n    {body}\n")
    with pytest.raises(ConfigError, match=rf"builder\.py:build.*{why}"):
        load(builder=f"{tmp_path / 'builder.py'}:build", device="cpu")


@pytest.mark.parametrize("name", ["warp", "mps", "meta", "cpu:x"])
def test_a_device_of_no_known_kind_is_a_fault_of_the_configuration(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.device '{name}': expected auto, cpu or cuda"):
        choose_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_gpu_that_is_not_there_is_the_machines_fault(name: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(NotReadyError, match=rf"model\.device '{name}'"):
        choose_device(name)


def test_a_gpu_number_beyond_the_last_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1").index == 1
    with pytest.raises(NotReadyError, match=r"'cuda:2'.*2 CUDA"):
        choose_device("cuda:2")


def test_auto_is_float32_on_a_cpu() -> None:
    assert choose_dtype("auto", torch.device("cpu")) is torch.float32


@pytest.mark.parametrize(("kind", "warned"), [("AVX2", True), ("AVX512", False)])
def test_a_cpu_that_emulates_bfloat16_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str, warned: bool
) -> None:
    monkeypatch.setattr(models, "_cpu_kind", lambda: kind)
    assert choose_dtype("bfloat16", torch.device("cpu")) is torch.bfloat16
    assert ("use model.dtype=float32" in caplog.text) is warned


def test_a_chat_template_file_that_is_missing_is_named(tiny_policy: str) -> None:
    config = ModelConfig(builder=tiny_policy, chat_template="/no/such.jinja")
    with pytest.raises(ConfigError, match=r"chat_template /no/such\.jinja"):
        chat_template(config, None)


def test_the_reference_copy_neither_learns_nor_follows(tiny_policy: str) -> None:
    policy = load(builder=tiny_policy, device="cpu")
    reference = policy.frozen_copy()
    before = reference.model.embed_tokens.weight.clone()
    with torch.no_grad():
        policy.model.model.embed_tokens.weight += 1
    assert reference.model.embed_tokens.weight.equal(before)
    assert not any(p.requires_grad for p in reference.parameters())


def test_the_tokenizer_comes_without_the_model(saved: Path, tiny_policy: str) -> None:
    (saved / "model.safetensors").unlink()
    for source in ({"path": str(saved)}, {"builder": tiny_policy}):
        assert load_tokenizer(ModelConfig(**source), base=None, seed=0).chat_template


def test_the_models_own_stop_tokens_are_read_without_its_weights(
    saved: Path, tiny_policy: str
) -> None:
    (saved / "model.safetensors").unlink()
    stops = saved / "generation_config.json"
    config = ModelConfig(path=str(saved))
    for written, expected in (("[0, 7]", (0, 7)), ("5", (5,)), ("null", ())):
        stops.write_text(f'{{"eos_token_id": {written}}}')
        assert generation_stop_ids(config, base=None) == expected
    stops.unlink()
    assert generation_stop_ids(config, base=None) == ()
    assert generation_stop_ids(ModelConfig(builder=tiny_policy), base=None) == ()


def test_a_loaded_model_packs_its_rows(tiny_policy: str) -> None:
    assert load(builder=tiny_policy, device="cpu").packs


def test_the_reference_is_saved_and_opened_as_it_was(saved: Path, tmp_path: Path) -> None:
    policy = load(path=str(saved), device="cpu", dtype="float32", attention="eager")
    first = open_reference(tmp_path / "reference", policy, 0)
    with torch.no_grad():
        policy.model.model.embed_tokens.weight += 1
    later = open_reference(tmp_path / "reference", policy, 3)
    for one, other in zip(first.parameters(), later.parameters(), strict=True):
        assert one.equal(other)
    assert later.config._attn_implementation == "eager"
    assert not any(p.requires_grad for p in later.parameters())
    with pytest.raises(ConfigError, match="has no nothing/ folder"):
        open_reference(tmp_path / "nothing", policy, 3)
