"""The house rules that a machine can check; import-linter checks where imports point."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "agentrl"
CORE = ("contracts", "plugins", "data", "runs", "learner", "algorithms", "rewards", "trainer")


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def num_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_the_core_stays_small() -> None:
    files = [path for name in CORE for path in sources(ROOT / name)]
    files += sources(ROOT / "rollout")
    written = [line for p in files for line in p.read_text(encoding="utf-8").splitlines()]
    assert sum(bool(line.strip()) for line in written) <= 6500


def test_the_trainer_stays_small() -> None:
    sizes = {path.name: num_lines(path) for path in sources(ROOT / "trainer")}
    assert sum(sizes.values()) <= 1200
    assert {name: size for name, size in sizes.items() if size > 200} == {}


def test_a_module_can_be_read_in_one_go() -> None:
    assert {p.name: n for p in sources(ROOT) if (n := num_lines(p)) > 400} == {}


def test_a_function_can_be_read_in_one_go() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{function.name}": size
        for path in sources(ROOT)
        for function in functions(path)
        if (size := (function.end_lineno or 0) - function.lineno + 1) > 40
    }
    assert long == {}


def test_no_room_is_a_junk_room() -> None:
    names = {path.stem for path in sources(ROOT)}
    assert names & {"utils", "helpers", "common", "misc"} == set()


@pytest.mark.parametrize(
    "folder", ["contracts", "plugins", "data", "runs", "rewards", "traces", "rollout", "config"]
)
def test_what_needs_no_torch_does_not_import_it(folder: str) -> None:
    heavy = {"torch", "transformers", "vllm", "docker", "datasets"}
    found = {
        f"{path.relative_to(ROOT)}:{name}"
        for path in sources(ROOT / folder)
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        for name in _imported(node)
        if name.partition(".")[0] in heavy
    }
    assert found == set()


def test_only_the_boundaries_catch_everything() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in sources(ROOT)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and isinstance(node.type, ast.Name)
        and node.type.id == "Exception"
    }
    assert found == {"errors.py"}


def test_nothing_behind_the_adapter_asks_what_a_plugin_has() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in ("rollout", "trainer", "learner", "rewards", "traces")
        for path in sources(ROOT / folder)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "hasattr"
    }
    assert found == set()


def test_http_libraries_stay_behind_their_border() -> None:
    imports = {
        str(path.relative_to(ROOT)): {
            name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.stmt)
            for name in _imported(node)
        }
        for path in sources(ROOT)
        if path.parent != ROOT / "clients"
    }
    tops = {path: {name.partition(".")[0] for name in names} for path, names in imports.items()}
    assert [p for p, names in tops.items() if names & {"aiohttp", "h11", "httpx"}] == []
    # What brings httpx2 has its exceptions translated where it is used.
    bringing = {path for path, names in tops.items() if names & {"httpx2", "mcp", "openai"}}
    assert [path for path in bringing if "agentrl.clients.border" not in imports[path]] == []


def _imported(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return []
