import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agentrl.plugins.registry import load_interactions, load_tools

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
needs_bubblewrap = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="bubblewrap is not installed"
)


def run(script: str, *words: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *words],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_the_example_tool_rolls_a_die() -> None:
    (tool,) = load_tools(str(EXAMPLES / "dice.yaml")).values()
    response, _, _ = await tool.execute("a", {"sides": 6})
    assert response.text in "123456"


async def test_the_example_interaction_wants_to_be_thanked() -> None:
    (user,) = load_interactions(str(EXAMPLES / "polite_user.yaml")).values()
    for text, end in (("42", False), ("42, thank you", True)):
        messages = [{"role": "assistant", "content": text}]
        assert (await user.generate_response("a", messages))[0] is end


@needs_bubblewrap
def test_the_example_rollout_prints_its_turns(tmp_path: Path) -> None:
    text = run("rollout_turn_by_turn.py", folder=tmp_path)
    assert text.startswith("[user] ")
    assert "reward" in text


@needs_bubblewrap
def test_the_example_run_trains_from_python(tmp_path: Path) -> None:
    words = ("sft.steps=2", "train.steps=1", "train.prompts_per_step=2", "eval.samples=2")
    text = run("grpo_from_python.py", *words, folder=tmp_path)
    assert "step 1: reward" in text
    assert (tmp_path / "runs" / "from-python" / "latest").exists()
