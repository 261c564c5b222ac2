"""TRL's own Python environment, and the process in it that `vs_trl.py` takes turns with."""

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vs_trl_problem import Job, Step

REQUIREMENTS = (
    "trl==1.16.0",
    "torch==2.13.0",
    "transformers==5.23.0",
    "accelerate==1.15.0",
    "datasets==5.2.0",
)
SCRIPT = Path(__file__).with_name("trl_side.py")


def make_environment(folder: Path) -> Path:
    """Return the interpreter of an environment with TRL, made and filled when it is not there."""
    python = folder / "bin" / "python"
    stamp = folder / "requirements.txt"
    wanted = "\n".join(REQUIREMENTS)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"installing {', '.join(REQUIREMENTS)} into {folder}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    stamp.write_text(wanted, encoding="utf-8")
    return python


class TrlProcess:
    """A training run of TRL's that waits between steps. Use it as a context manager.

    Args:
        python: the interpreter of TRL's environment.
        job: what to train.
        folder: where its job and its log are written.
    """

    def __init__(self, python: Path, job: Job, folder: Path) -> None:
        self.steps: list[Step] = []
        self._log = folder / "trl.log"
        job.write(folder / "job.json")
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [python, SCRIPT, folder / "job.json"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def __enter__(self) -> Self:
        """Wait until it could take its first step."""
        self._read()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def step(self) -> None:
        """Let it take one step, and note what it reports."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self.steps.append(Step(**self._read()))

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
            raise SystemExit(f"TRL's side ended; the last lines of {self._log}:\n{tail}")
        message: dict[str, Any] = json.loads(line)
        return message
