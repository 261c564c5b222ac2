import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import agentrl
import agentrl.contracts

ROOT = Path(agentrl.__file__).parent.parent
CONTRACTS = [
    f"agentrl.contracts.{m.name}" for m in pkgutil.iter_modules(agentrl.contracts.__path__)
]
SUBCLASSED = [*CONTRACTS, "agentrl.algorithms.base", "agentrl.runs.reporter"]
NOT_FOR_USERS = {
    # Between the trainer and its engines.
    "PublishedWeights",
    "WeightPublisher",
    # Parts of a message that nobody has to name.
    "FunctionCall",
    "ToolCallMessage",
}


@pytest.mark.parametrize("name", agentrl.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(agentrl, name).__module__.startswith("agentrl.")


@pytest.mark.parametrize("module", SUBCLASSED)
def test_every_class_that_users_subclass_or_are_given_is_exported(module: str) -> None:
    classes = {
        name
        for name, value in vars(importlib.import_module(module)).items()
        if inspect.isclass(value) and value.__module__ == module and not name.startswith("_")
    }
    assert classes - NOT_FOR_USERS <= set(agentrl.__all__)


def test_the_exports_are_sorted_and_those_that_type_checkers_see() -> None:
    tree = ast.parse((ROOT / "agentrl" / "__init__.py").read_text(encoding="utf-8"))
    seen = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agentrl.")
        for alias in node.names
    }
    assert seen == agentrl._HOMES
    assert list(agentrl.__all__) == sorted(agentrl._HOMES)
    assert set(agentrl.__all__) <= set(dir(agentrl))


def test_the_documented_names_are_the_exported_ones() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    named = {name for row in rows for name in re.findall(r"`([A-Za-z_]+)`", row)}
    assert named == set(agentrl.__all__)


@pytest.mark.parametrize("folder", ["README.md", "docs", "examples", "tasks", "tools"])
def test_what_the_documents_import_is_exported(folder: str) -> None:
    path = ROOT / folder
    files = [path] if path.is_file() else [*path.rglob("*.md"), *path.rglob("*.py")]
    pattern = re.compile(r"from agentrl import ([\w, ]+)")
    lines = [names for file in files for names in pattern.findall(file.read_text("utf-8"))]
    imported = {name for names in lines for name in names.replace(",", " ").split()}
    assert imported <= set(agentrl.__all__)


def test_what_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = agentrl.nothing


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import agentrl, sys; print({'torch', 'pydantic', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_names_for_plugins_need_no_torch() -> None:
    code = (
        "import sys; from agentrl import BaseTool, BaseInteraction, BaseTask, Sample, Trajectory, "
        "Scorer, Reporter, FakeSandbox, load_config, load_tools, read_traces\n"
        "print({'torch', 'transformers', 'vllm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
