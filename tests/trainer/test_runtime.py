"""What is loaded, and when: nothing by a constructor, no policy for a chat endpoint, one copy."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from agentrl.contracts.engine import WeightPublisher
from agentrl.contracts.sample import Sample
from agentrl.engines.http.chat import ChatEngine
from agentrl.engines.http.engine import HttpEngine
from agentrl.engines.transformers import TransformersEngine
from agentrl.errors import ConfigError, TemplateError
from agentrl.learner.models import Model
from agentrl.plugins.reference import load_plugin
from agentrl.templates.render import Renderer
from agentrl.trainer import content, runtime
from agentrl.trainer.trainer import Trainer

CHAT = {"type": "http", "urls": ["http://127.0.0.1:1"], "api": "openai_chat", "model": "m"}
SERVER = {"type": "http", "urls": ["http://127.0.0.1:1"], "api": "sglang"}


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let servers that are not there start; return what was started."""
    started: list[str] = []

    async def start(self: Any) -> None:
        started.append(type(self).__name__)

    for engine in (ChatEngine, HttpEngine):
        monkeypatch.setattr(engine, "start", start)
    return started


def test_making_a_trainer_leaves_the_disk_as_it_was(make_config: Any, tmp_path: Path) -> None:
    Trainer(make_config()).train()
    run = make_config().run_dir
    (run / "metrics.jsonl").write_text("")
    (run / "config.yaml").write_text("seed: 5")

    def content() -> dict[Path, tuple[bytes, int]]:
        files = [
            path for path in tmp_path.rglob("*") if path.is_file() and "cache" not in str(path)
        ]
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    before = content()
    Trainer(make_config())
    Trainer(make_config(name="other"))
    assert content() == before
    assert not make_config(name="other").run_dir.exists()


async def test_a_chat_endpoint_is_evaluated_without_loading_a_policy(
    make_config: Any, tmp_path: Path, tiny_policy: str, starts: list[str], monkeypatch: Any
) -> None:
    model, tokenizer = load_plugin(tiny_policy)(0)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    model.config.save_pretrained(tmp_path / "tokenizer")

    def no_weights(*words: Any, **options: Any) -> Model:
        raise AssertionError("the policy's weights were loaded")

    monkeypatch.setattr(runtime, "load_model", no_weights)
    config = make_config(engine=CHAT, model={"path": str(tmp_path / "tokenizer")})
    async with runtime.open_rollout(config) as host:
        assert isinstance(host.engine, ChatEngine)
    assert starts == ["ChatEngine"]


async def test_an_engine_with_weights_of_its_own_holds_the_only_copy(
    make_config: Any, starts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[Any]] = []
    load = runtime.load_model

    def watched(*words: Any, **options: Any) -> Model:
        model = load(*words, **options)
        loaded.append(weakref.ref(model.model))
        return model

    taken: list[str] = []

    async def take(self: HttpEngine, publisher: WeightPublisher) -> None:
        async with publisher.open() as weights:
            taken.extend(name for name, _ in weights.named_tensors())

    monkeypatch.setattr(runtime, "load_model", watched)
    monkeypatch.setattr(HttpEngine, "update_weights", take)
    async with runtime.open_rollout(make_config(engine=SERVER)):
        gc.collect()
        assert "model.embed_tokens.weight" in taken
        assert [alive() for alive in loaded] == [None]


async def test_the_embedded_engine_generates_with_the_loaded_module(make_config: Any) -> None:
    async with runtime.open_rollout(make_config()) as host:
        group = await host.rollout.run_group(
            host.task.samples("train")[0], group_id="g", size=2, seed=0
        )
    assert isinstance(host.engine, TransformersEngine)
    assert len(group.trajectories) == 2


async def test_a_sample_that_names_an_unknown_tool_stops_before_an_engine_starts(
    make_config: Any, starts: list[str]
) -> None:
    rows = [Sample(prompt=[{"role": "user", "content": "go"}], tool_selection=["missing"])]
    with pytest.raises(ConfigError, match="missing"):
        async with runtime.open_rollout(make_config(engine=SERVER), samples=rows):
            pass
    assert starts == []


async def test_a_template_that_cannot_be_used_stops_before_an_engine_starts(
    make_config: Any, starts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(renderer: Renderer, *words: Any, **options: Any) -> None:
        raise TemplateError(f"{renderer.name} cannot be used")

    monkeypatch.setattr(content, "verify_template", refuse)
    with pytest.raises(TemplateError, match="cannot be used"):
        async with runtime.open_rollout(make_config(engine=SERVER)):
            pass
    assert starts == []


async def test_a_run_of_samples_that_do_not_fit_stops_before_its_first_step(
    make_config: Any, tmp_path: Path
) -> None:
    config = make_config()
    (tmp_path / "rows.jsonl").write_text(
        '{"prompt": "fine"}\n{"prompt": "b", "extra_info": {"tool_selection": ["missing"]}}\n'
    )
    with pytest.raises(ConfigError, match="missing"):
        await Trainer(config).run()


async def test_a_second_trainer_of_one_folder_is_refused(make_config: Any) -> None:
    first, second = Trainer(make_config()), Trainer(make_config())
    async with first.opened():
        with pytest.raises(ConfigError, match=r"process \d+ is writing into it"):
            await second.run()
