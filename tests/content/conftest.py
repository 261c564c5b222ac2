import shutil
from pathlib import Path

import pytest

from agentrl.config.sandbox import BubblewrapSandboxConfig
from agentrl.paths import shipped_root
from agentrl.rollout.services import RunServices

DATA = Path(__file__).parents[3] / "shared" / "data" / "gsm8k"


@pytest.fixture
def gsm8k_data() -> Path:
    """The folder of GSM8K's train.jsonl and test.jsonl, which is not part of the repository."""
    if not (DATA / "train.jsonl").exists():
        pytest.skip("GSM8K is not here (../shared/data/gsm8k)")
    return DATA


@pytest.fixture
def services() -> RunServices:
    """A run's services with a real sandbox."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    return RunServices(BubblewrapSandboxConfig(workers=1))


@pytest.fixture(autouse=True)
def _content_is_here() -> None:
    if not (shipped_root() / "tasks").is_dir():
        pytest.skip("the content folders are not here")
