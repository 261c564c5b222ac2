from pathlib import Path

import pytest

from agentrl import paths
from agentrl.contracts.sample import Sample
from agentrl.errors import ConfigError
from agentrl.paths import resolve_path
from agentrl.plugins import reference
from agentrl.plugins.reference import load_plugin


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "shipped"
    for module in (paths, reference):
        monkeypatch.setattr(module, "shipped_root", lambda: root)
    return root


def test_a_dotted_reference_is_imported() -> None:
    assert load_plugin("agentrl.contracts.sample.Sample") is Sample


def test_a_file_reference_is_relative_to_the_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "mine/tool.py", "class Tool: place = 'yaml'")
    write(tmp_path, "elsewhere/tool.py", "class Tool: place = 'cwd'")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_plugin("tool.py:Tool", base=tmp_path / "mine").place == "yaml"
    assert load_plugin("tool.py:Tool").place == "cwd"
    assert load_plugin(f"{tmp_path}/mine/tool.py:Tool").place == "yaml"


def test_a_file_that_is_not_beside_the_yaml_is_looked_up_among_the_shipped(
    tmp_path: Path, shipped: Path
) -> None:
    write(shipped, "tools/calc.py", "class Calc: place = 'shipped'")
    assert load_plugin("tools/calc.py:Calc", base=tmp_path).place == "shipped"
    assert resolve_path("tools/none.py", tmp_path) == tmp_path / "tools/none.py"


@pytest.mark.parametrize("reference", ["tools.shipped_calc.Calc", "shipped_calc.Calc"])
def test_a_dotted_reference_falls_back_to_the_shipped(shipped: Path, reference: str) -> None:
    write(shipped, "tools/shipped_calc.py", "class Calc: place = 'shipped'")
    assert load_plugin(reference).place == "shipped"


def test_two_files_of_one_name_live_side_by_side(tmp_path: Path) -> None:
    write(tmp_path, "a/tool.py", "class Tool: place = 'a'")
    write(tmp_path, "b/tool.py", "class Tool: place = 'b'")
    found = [load_plugin("tool.py:Tool", base=tmp_path / name) for name in ("a", "b")]
    assert [tool.place for tool in found] == ["a", "b"]


def test_one_file_is_one_module(tmp_path: Path) -> None:
    write(tmp_path, "tool.py", "class Tool: pass")
    again = load_plugin("../" + tmp_path.name + "/tool.py:Tool", base=tmp_path)
    assert load_plugin("tool.py:Tool", base=tmp_path) is again


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nosuch.module.Tool", "neither importable nor shipped; install its package"),
        ("agentrl.contracts.nosuch.Tool", "'agentrl.contracts.nosuch' is neither importable"),
        ("nosuch.py:Tool", "no such file"),
        ("nosuch", "expected package.module.Class, path/file.py:Class or an entry point"),
        ("agentrl.contracts.sample.Sampel", r"has no 'Sampel'; its classes are \[.*'Sample'"),
    ],
)
def test_a_reference_that_nothing_answers_says_what_was_expected(
    reference: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_plugin(reference)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_package", "No module named 'no_such_package'"),
        ("def", "invalid syntax"),
        ("undefined_name", "NameError: name 'undefined_name' is not defined"),
        ("open('/nowhere/at/all')", "FileNotFoundError"),
    ],
)
def test_a_file_that_does_not_import_says_why_every_time(
    tmp_path: Path, text: str, message: str
) -> None:
    write(tmp_path, "tool.py", text + "\nclass Tool: pass")
    for _ in range(2):
        with pytest.raises(ConfigError, match=rf"tool\.py.*{message}"):
            load_plugin("tool.py:Tool", base=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_package", "needs the package 'no_such_package'; install it"),
        ("undefined_name", "NameError"),
    ],
)
def test_an_importable_module_that_does_not_import_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    name = f"importable_{len(text)}"
    write(tmp_path, f"{name}.py", text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=message):
        load_plugin(f"{name}.Tool")
