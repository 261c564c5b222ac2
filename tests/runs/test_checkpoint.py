import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrl.errors import ConfigError, NotReadyError
from agentrl.learner.models import open_reference
from agentrl.plugins.reference import load_plugin
from agentrl.runs.checkpoint import STATE_FILE
from agentrl.trainer.trainer import Trainer


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_disk_that_fills_up_leaves_the_previous_checkpoint_whole(
    make_config: Any, small_disk: Path
) -> None:
    # One checkpoint takes about 250 KB: the second fits, the third does not.
    config = make_config(
        output_dir=str(small_disk), checkpoint={"every": 1, "keep": 5}, train={"steps": 9}
    )
    with pytest.raises(NotReadyError, match=r"the disk is full.*--resume"):
        await Trainer(config).run()
    checkpoints = config.run_dir / "checkpoints"
    names = sorted(path.name for path in checkpoints.iterdir())
    assert names
    assert not any(name.endswith(".tmp") for name in names)
    assert (config.run_dir / "latest").read_text().strip() == names[-1]
    for path in checkpoints.iterdir():
        if path.name != names[-1]:
            shutil.rmtree(path)
    resumed = make_config(
        output_dir=str(small_disk), checkpoint={"every": 0, "keep": 1}, train={"steps": 9}
    )
    trainer = Trainer(resumed, resume=True)
    async with trainer.opened():
        assert trainer.progress.step == int(names[-1].removeprefix("step-"))


def test_what_a_killed_save_left_behind_is_overwritten(make_config: Any) -> None:
    config = make_config()
    torn = config.run_dir / "checkpoints" / ".step-3.tmp"
    torn.mkdir(parents=True)
    (torn / "rubbish").write_text("half")
    Trainer(config).train()
    folder = config.run_dir / "checkpoints" / "step-3"
    assert (folder / STATE_FILE).is_file()
    assert not (folder / "rubbish").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["step-3"]


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x80\x02."])
def test_a_state_that_is_not_one_is_named(make_config: Any, content: bytes) -> None:
    config = make_config()
    Trainer(config).train()
    (config.run_dir / "checkpoints" / "step-3" / STATE_FILE).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"step-3: its {STATE_FILE} cannot be read"):
        Trainer(config, resume=True).train()


def test_records_are_not_thrown_away_when_the_checkpoint_is_gone(make_config: Any) -> None:
    config = make_config()
    Trainer(config).train()
    before = (config.run_dir / "metrics.jsonl").read_bytes()
    shutil.rmtree(config.run_dir / "checkpoints" / "step-3")
    with pytest.raises(ConfigError, match="step-3"):
        Trainer(config, resume=True)
    assert (config.run_dir / "metrics.jsonl").read_bytes() == before


def test_resuming_cuts_what_was_recorded_after_the_checkpoint(make_config: Any) -> None:
    config = make_config()
    Trainer(config).train()
    metrics = config.run_dir / "metrics.jsonl"
    before = metrics.read_bytes()
    metrics.write_bytes(before + b'{"step": 4, "phase": "tr')
    assert Trainer(config, resume=True).train().steps == 3
    assert metrics.read_bytes() == before


def test_a_resumed_penalty_needs_the_saved_reference(make_config: Any) -> None:
    config = make_config(algorithm={"kl": {"coefficient": 0.1}})
    Trainer(config).train()
    shutil.rmtree(config.run_dir / "reference")
    longer = make_config(
        algorithm={"kl": {"coefficient": 0.1}}, train={"steps": 4, "prompts_per_step": 2}
    )
    with pytest.raises(ConfigError, match=r"no reference/ folder"):
        Trainer(longer, resume=True).train()


async def test_the_reference_of_a_resumed_run_is_the_first_policy(
    make_config: Any, tiny_policy: str
) -> None:
    config = make_config(algorithm={"kl": {"coefficient": 0.1}})
    await Trainer(config).run()
    first = load_plugin(tiny_policy)(config.seed)[0].state_dict()
    async with Trainer(config, resume=True).opened() as session:
        assert session.run.progress.step == 3
        reference = open_reference(
            config.run_dir / "reference", session.policy.model, 3
        ).state_dict()
        live = session.policy.model.model.state_dict()
        assert all(value.equal(reference[name]) for name, value in first.items())
        assert not all(value.equal(live[name]) for name, value in first.items())
