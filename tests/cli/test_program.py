import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

Program = Callable[..., Result]


def test_help_imports_neither_torch_nor_transformers_nor_docker() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from agentrl.cli.main import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print([m for m in ('torch', 'transformers', 'docker', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_python_dash_m_prints_the_version() -> None:
    words = [sys.executable, "-m", "agentrl", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("agentrl 0.")


def test_a_run_leaves_its_records_and_says_where(agentrl: Program, project: Path) -> None:
    result = agentrl("train", "train.yaml")
    assert result.exit_code == 0, result.output
    assert "step 1/1" in result.stdout
    assert "before" in result.stdout and "after" in result.stdout
    run = project / "runs" / "tiny"
    phases = [
        json.loads(line)["phase"] for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    assert phases == ["eval", "train", "eval"]
    assert (run / "latest").read_text().strip() == "step-1"
    assert (run / "checkpoints" / "step-1" / "model.safetensors").exists()
    assert len((run / "traces" / "train.jsonl").read_text().splitlines()) == 2


def test_eval_takes_a_checkpoint_and_writes_trajectories(agentrl: Program, project: Path) -> None:
    assert agentrl("train", "train.yaml").exit_code == 0
    result = agentrl(
        "eval", "train.yaml", "--checkpoint", "runs/tiny/checkpoints/step-1", "--output", "e.jsonl"
    )
    assert result.exit_code == 0, result.output
    assert "on 2 problems" in result.stdout
    assert len((project / "e.jsonl").read_text().splitlines()) == 2


def test_rollout_prints_the_dialogue_and_its_reward(agentrl: Program, project: Path) -> None:
    result = agentrl("rollout", "train.yaml", "-n", 2, "--split", "train")
    assert result.exit_code == 0, result.output
    assert "[user] say 0" in result.stdout and "[user] say 1" in result.stdout
    assert "reward 0" in result.stdout


def test_rollout_refuses_an_unknown_split(agentrl: Program, project: Path) -> None:
    assert agentrl("rollout", "train.yaml", "--split", "dev").exit_code == 2


def test_config_show_prints_what_the_words_changed(agentrl: Program, project: Path) -> None:
    result = agentrl("config", "show", "train.yaml", "train.steps=7")
    assert "steps: 7" in result.stdout


def test_config_schema_describes_every_section(agentrl: Program) -> None:
    schema = json.loads(agentrl("config", "schema").stdout)
    assert {"model", "task", "rollout", "train", "sandbox"} <= set(schema["properties"])


def test_doctor_fails_with_3_and_names_what_is_wrong(agentrl: Program, project: Path) -> None:
    (project / "train.jsonl").unlink()
    result = agentrl("doctor", "train.yaml")
    assert result.exit_code == 3
    lines = [line for line in result.stdout.splitlines() if line.startswith("failed")]
    assert any("train.jsonl" in line for line in lines)


def test_a_tool_is_called_by_hand(agentrl: Program, project: Path) -> None:
    arguments = '{"answer": "42"}'
    right = agentrl(
        "tool", "run", "tools/gsm8k.yaml", arguments, "--create", '{"ground_truth": 42}'
    )
    assert right.exit_code == 0, right.output
    assert "trajectory reward: 1" in right.stdout
    wrong = agentrl("tool", "run", "tools/gsm8k.yaml", "{}", "--create", '{"ground_truth": 42}')
    assert wrong.exit_code == 1
    assert "'answer' is a required property" in wrong.stdout


def test_the_shipped_tools_are_listed(agentrl: Program) -> None:
    assert "code_interpreter" in agentrl("tool", "list").stdout
