import subprocess
import sys
from pathlib import Path

import pytest

from agentrl.engines.vllm.interpreter import check_python
from agentrl.errors import ConfigError, NotReadyError


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing in it."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder


def install(environment: Path, version: str, *packages: str) -> None:
    """Put empty packages, and the record of a vLLM, into an environment."""
    [site] = environment.glob("lib/python*/site-packages")
    for name in packages:
        (site / name).mkdir(exist_ok=True)
        (site / name / "__init__.py").touch()
    for old in site.glob("vllm-*.dist-info"):
        (old / "METADATA").unlink()
        old.rmdir()
    record = site / f"vllm-{version}.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


def test_a_path_that_is_no_program_is_named() -> None:
    with pytest.raises(ConfigError, match=r"engine\.python: /nowhere/python: .* bin/python"):
        check_python("/nowhere/python")


def test_a_program_that_is_no_python_is_named() -> None:
    with pytest.raises(ConfigError, match=r"engine\.python: /bin/echo: expected a Python"):
        check_python("/bin/echo")


def test_a_python_without_vllm_says_what_to_install(bare: Path) -> None:
    with pytest.raises(NotReadyError, match=r"engine\.python: .*vLLM is not installed; install"):
        check_python(str(bare / "bin" / "python"))


def test_what_a_python_lacks_besides_vllm_is_named(bare: Path) -> None:
    install(bare, "0.32.0", "vllm", "torch", "transformers")
    with pytest.raises(NotReadyError, match=r"vLLM 0\.32\.0 is there, but not fastapi, uvicorn,"):
        check_python(str(bare / "bin" / "python"))


def test_another_release_is_refused_and_a_supported_one_taken(bare: Path) -> None:
    packages = ("vllm", "torch", "transformers", "fastapi", "uvicorn")
    install(bare, "0.12.0", *packages)
    with pytest.raises(NotReadyError, match=r"expected vLLM 0\.24 to 0\.33, found 0\.12\.0"):
        check_python(str(bare / "bin" / "python"))
    install(bare, "0.33.1", *packages)
    assert check_python(str(bare / "bin" / "python")) == "0.33.1"


def test_the_lists_of_versions_name_one_version_of_what_both_install() -> None:
    folder = Path(__file__).parents[3] / ".ci"
    ours = _pins(folder / "constraints.txt")
    for file in folder.glob("constraints-vllm-*.txt"):
        theirs = _pins(file)
        assert {n: v for n, v in theirs.items() if n in ours} == {
            n: v for n, v in ours.items() if n in theirs
        }


def _pins(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    pairs = (line.split("==") for line in lines)
    return {name.lower().replace("_", "-"): version for name, version in pairs}
