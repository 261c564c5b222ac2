import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from agentrl.plugins.reference import load_plugin

Program = Callable[..., Result]


def assert_one_error(result: Result, code: int, *parts: str) -> None:
    assert result.exit_code == code, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    assert "Traceback" not in result.output
    for part in parts:
        assert part in errors[0], errors[0]


def test_an_unknown_key_names_the_nearest_valid_one(agentrl: Program, project: Path) -> None:
    result = agentrl("train", "train.yaml", "train.stesp=3")
    assert_one_error(result, 2, "`train.stesp`", "did you mean 'steps'")


def test_an_unknown_key_in_a_union_section_names_the_nearest(
    agentrl: Program, project: Path
) -> None:
    result = agentrl("train", "train.yaml", "sandbox.type=bubblewrap", "sandbox.wrokers=3")
    assert_one_error(result, 2, "wrokers", "did you mean 'workers'")


def test_the_old_spelling_of_optimizer_is_refused_with_the_new_one(
    agentrl: Program, configure: Callable[..., None]
) -> None:
    configure(optimiser={"learning_rate": 1e-3})
    result = agentrl("train", "train.yaml")
    assert_one_error(result, 2, "unknown key `optimiser`; did you mean 'optimizer'?")


def test_a_missing_configuration_file_is_named(agentrl: Program, project: Path) -> None:
    assert_one_error(agentrl("train", "nowhere.yaml"), 2, "nowhere.yaml")


def test_a_missing_model_folder_is_named(agentrl: Program, configure: Callable[..., None]) -> None:
    configure(model={"path": "./no/such/model"})
    assert_one_error(agentrl("train", "train.yaml"), 2, "./no/such/model", "no such folder")


def test_a_model_without_a_chat_template_is_refused_with_the_remedy(
    agentrl: Program, project: Path, configure: Callable[..., None]
) -> None:
    model, tokenizer = load_plugin(f"{project / 'tiny.py'}:build")(0)
    tokenizer.chat_template = None
    model.save_pretrained(project / "bare")
    tokenizer.save_pretrained(project / "bare")
    configure(model={"path": "./bare"})
    assert_one_error(agentrl("train", "train.yaml"), 2, "no chat template", "model.chat_template")


def test_a_tool_schema_that_is_not_json_schema_is_refused(
    agentrl: Program, configure: Callable[..., None]
) -> None:
    schema = {"type": "function", "function": {"name": "t", "parameters": {"type": "wrong"}}}
    configure(tools=[{"class_name": "tools.gsm8k.Gsm8kTool", "tool_schema": schema}])
    assert_one_error(
        agentrl("train", "train.yaml"), 2, "tool_schema.function.parameters", "JSON Schema"
    )


def test_a_class_that_is_not_there_is_named_with_those_that_are(
    agentrl: Program, configure: Callable[..., None]
) -> None:
    configure(tools=[{"class_name": "tiny.py:Missing"}])
    assert_one_error(agentrl("train", "train.yaml"), 2, "tiny.py", "'Missing'", "its classes are")


def test_two_tools_of_one_name_are_refused(
    agentrl: Program, configure: Callable[..., None], project: Path
) -> None:
    (project / "two.py").write_text(
        "from agentrl import BaseTool, ToolResponse\n"
        "class One(BaseTool):\n"
        "    async def execute(self, instance_id, parameters, **kwargs):\n"
        "        return ToolResponse(text=''), 0.0, {}\n"
    )
    entry = {
        "class_name": "two.py:One",
        "tool_schema": {"type": "function", "function": {"name": "same"}},
    }
    configure(tools=[entry, entry])
    assert_one_error(agentrl("train", "train.yaml"), 2, "'same'", "there already")


def test_sampling_that_the_update_cannot_score_is_refused(agentrl: Program, project: Path) -> None:
    for word in ("temperature=0", "top_p=0.9", "top_k=5"):
        result = agentrl("train", "train.yaml", f"rollout.sampling.{word}")
        assert_one_error(result, 2, "rollout.sampling", "top_p=1 and top_k=0")


def test_an_empty_data_file_is_refused(agentrl: Program, project: Path) -> None:
    (project / "train.jsonl").write_text("")
    assert_one_error(agentrl("train", "train.yaml"), 2, "train.jsonl", "empty")
    assert not (project / "runs").exists()


def test_a_row_without_a_prompt_is_named_by_number(agentrl: Program, project: Path) -> None:
    (project / "train.jsonl").write_text('{"prompt": "a", "answer": 1}\n{"question": "b"}\n')
    assert_one_error(agentrl("train", "train.yaml"), 2, "row 2", "no `prompt`", "question")


def test_no_sandbox_to_be_had_exits_with_3_and_the_remedy(
    agentrl: Program,
    configure: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    configure(tools="tools/code_interpreter.yaml")
    result = agentrl("train", "train.yaml")
    assert_one_error(result, 3, "bubblewrap")


def test_the_folder_of_another_run_is_refused_without_resume(
    agentrl: Program, project: Path
) -> None:
    assert agentrl("train", "train.yaml").exit_code == 0
    assert_one_error(agentrl("train", "train.yaml"), 2, "tiny", "--resume")
    assert agentrl("train", "train.yaml", "--resume").exit_code == 0
    result = agentrl("train", "train.yaml", "--resume", "optimizer.learning_rate=0.5")
    assert_one_error(result, 2, "optimizer.learning_rate", "another configuration")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small disk needs root")
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this system does not let us mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_exits_with_3_and_leaves_nothing_half_written(
    agentrl: Program, project: Path, small_disk: Path
) -> None:
    result = agentrl("train", "train.yaml", f"output_dir={small_disk}")
    assert_one_error(result, 3, "disk is full", "--resume")
    checkpoints = small_disk / "tiny" / "checkpoints"
    assert not checkpoints.exists() or not list(checkpoints.iterdir())
    assert not (small_disk / "tiny" / "latest").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("train", "train.yaml", "output_dir=/dev/null"),
        ("rollout", "train.yaml", "--output", "/dev/null/t.jsonl"),
        ("sandbox", "run", "missing.py"),
        ("sandbox", "bench", "wrokers=3"),
        ("sandbox", "serve", "--host", "0.0.0.0"),
        ("tool", "run", "nowhere.yaml", "{}"),
        ("tool", "run", "tools/gsm8k.yaml", "{"),
        ("config", "show", "train.yaml", "train.steps"),
    ],
)
def test_every_command_says_in_one_line_what_is_wrong(
    agentrl: Program, project: Path, words: tuple[str, ...]
) -> None:
    assert_one_error(agentrl(*words), 2)


def test_a_checkpoint_that_is_not_there_is_a_usage_error(agentrl: Program, project: Path) -> None:
    result = agentrl("eval", "train.yaml", "--checkpoint", "gone")
    assert result.exit_code == 2
    assert "'gone'" in result.stderr


def test_a_sandbox_service_without_its_packages_names_the_extra(
    agentrl: Program, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert_one_error(agentrl("sandbox", "serve"), 3, "agentrl-toolkit[server]")


@pytest.mark.parametrize(("package", "extra"), [("torch", "train"), ("transformers", "train")])
def test_a_missing_package_names_the_extra_that_brings_it(
    project: Path, package: str, extra: str
) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from agentrl.cli.main import main; sys.argv = ['agentrl', 'train', 'train.yaml']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stderr.strip().startswith("error: this needs the package")
    assert f"agentrl-toolkit[{extra}]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["config", "schema"], ["config", "show", "train.yaml"]])
def test_configurations_are_shown_without_torch(project: Path, words: list[str]) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        f"from agentrl.cli.main import main; sys.argv = ['agentrl', *{words!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rollout" in done.stdout
    assert done.stderr.startswith("note: torch is not installed")


def test_a_debug_log_level_shows_the_traceback(project: Path) -> None:
    words = [sys.executable, "-m", "agentrl", "train", "nowhere.yaml"]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        env=os.environ | {"AGENTRL_LOG_LEVEL": "DEBUG"},
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" in done.stderr


BROKEN_NODE = """
from agentrl.contracts.trajectory import Group
from agentrl.errors import ConfigError
from agentrl.flow.node import Refuse

def compliant(group: Group) -> Refuse | None:
    raise ConfigError("no rules were given")
"""


def test_an_error_of_a_node_says_which_node(agentrl: Program, project: Path) -> None:
    (project / "rules.py").write_text(BROKEN_NODE)
    node = "flow={insert: {after: rollout, node: rules.py:compliant}}"
    result = agentrl("train", "train.yaml", node)
    assert_one_error(result, 2, "no rules were given", "(raised by flow node 'compliant')")
