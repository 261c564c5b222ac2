import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from agentrl.data.file_task import FileTask
from agentrl.plugins.reference import load_plugin
from agentrl.traces.store import read_traces

Program = Callable[..., Result]
ECHO = """
from typing import TypedDict
from agentrl import BaseTool, ToolResponse
class Arguments(TypedDict):
    text: str
class Echo(BaseTool):
    async def execute(self, instance_id, parameters: Arguments, **kwargs):
        return ToolResponse(text=parameters["text"]), 0.0, {}
"""


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
    traces = list(read_traces(run / "traces" / "train.jsonl.gz"))
    assert [(t.step, t.fate, len(t.group.trajectories)) for t in traces] == [(1, "trained", 2)]


def test_eval_takes_a_checkpoint_and_writes_trajectories(agentrl: Program, project: Path) -> None:
    assert agentrl("train", "train.yaml").exit_code == 0
    result = agentrl(
        "eval",
        "train.yaml",
        "--checkpoint",
        "runs/tiny/checkpoints/step-1",
        "--output",
        "e.jsonl.gz",
    )
    assert result.exit_code == 0, result.output
    assert "on 2 problems" in result.stdout
    assert [t.fate for t in read_traces(project / "e.jsonl.gz")] == ["eval", "eval"]


def test_rollout_prints_the_dialogue_and_its_reward(agentrl: Program, project: Path) -> None:
    result = agentrl("rollout", "train.yaml", "-n", 2, "--split", "train")
    assert result.exit_code == 0, result.output
    assert "[user] say 0" in result.stdout and "[user] say 1" in result.stdout
    assert "reward 0" in result.stdout


SLOW = "import time\ndef score(trajectory):\n    time.sleep(1)\n    return 0.0\n"


@pytest.mark.parametrize("command", ["rollout", "eval"])
def test_outside_of_a_run_too_who_waits_for_long_is_told(
    agentrl: Program, project: Path, command: str
) -> None:
    (project / "slow.py").write_text(SLOW)
    told = ("rewards=[{type: slow.py:score}]", "watch.tell_after_s=0.2")
    result = agentrl(command, "train.yaml", *told)
    assert result.exit_code == 0, result.output
    assert "for scorer 'score'" in result.output.replace("\n", " ")


def test_rollout_refuses_an_unknown_split(agentrl: Program, project: Path) -> None:
    assert agentrl("rollout", "train.yaml", "--split", "dev").exit_code == 2


def test_config_show_prints_what_the_words_changed(agentrl: Program, project: Path) -> None:
    result = agentrl("config", "show", "train.yaml", "train.steps=7")
    assert "steps: 7" in result.stdout


def test_config_show_prints_the_algorithms_own_options(agentrl: Program, project: Path) -> None:
    result = agentrl("config", "show", "train.yaml", "algorithm.type=rloo")
    algorithm = yaml.safe_load(result.stdout)["algorithm"]
    assert algorithm["type"] == "rloo"
    assert "clip" in algorithm


def test_doctor_loads_no_weights_and_reads_the_data_once(
    agentrl: Program, project: Path, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_plugin(f"{project / 'tiny.py'}:build")(0)
    tokenizer.save_pretrained(project / "bare")
    model.config.save_pretrained(project / "bare")
    (project / "echo.py").write_text(ECHO)
    configure(model={"path": "./bare", "device": "cpu"}, tools=[{"class_name": "echo.py:Echo"}])
    reads: list[str] = []
    read = FileTask.samples

    def counted(self: FileTask, split: Any) -> Any:
        reads.append(split)
        return read(self, split)

    monkeypatch.setattr(FileTask, "samples", counted)
    result = agentrl("doctor", "train.yaml", "sandbox.type=local", "sandbox.unsafe=true")
    assert result.exit_code == 0, result.output
    assert sorted(reads) == ["test", "train"]
    assert "tool echo" in result.stdout
    assert "template" in result.stdout


def test_config_schema_describes_every_section(agentrl: Program) -> None:
    schema = json.loads(agentrl("config", "schema").stdout)
    assert {"model", "task", "rollout", "train", "sandbox"} <= set(schema["properties"])


def test_doctor_fails_with_3_and_names_what_is_wrong(agentrl: Program, project: Path) -> None:
    (project / "train.jsonl").unlink()
    result = agentrl("doctor", "train.yaml")
    assert result.exit_code == 3
    lines = [line for line in result.stdout.splitlines() if line.startswith("failed")]
    assert any("train.jsonl" in line for line in lines)


@pytest.mark.parametrize("words", ["algorithm.type=grppo", "rewards=[{type: 'gone.py:fn'}]"])
def test_doctor_checks_the_algorithm_and_the_rewards(
    agentrl: Program, project: Path, words: str
) -> None:
    result = agentrl("doctor", "train.yaml", words)
    failed = [line for line in result.stdout.splitlines() if line.startswith("failed")]
    assert any("learning" in line for line in failed), result.output


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
