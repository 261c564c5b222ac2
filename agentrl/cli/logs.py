"""Where log records go: warnings to the screen, everything to the run's `log.jsonl`."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from typing_extensions import override

from agentrl.errors import ConfigError


class JsonLines(logging.Formatter):
    """One JSON object a record."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        elif "traceback" in record.__dict__:
            fields["traceback"] = record.__dict__["traceback"]
        return json.dumps(fields, ensure_ascii=False)


def log_to_screen(console: Console) -> None:
    """Show records from AGENTRL_LOG_LEVEL (default WARNING) on.

    Raises:
        ConfigError: the level is not one of Python's.
    """
    name = os.environ.get("AGENTRL_LOG_LEVEL", "WARNING").upper()
    level = logging.getLevelNamesMapping().get(name)
    if level is None:
        raise ConfigError(f"AGENTRL_LOG_LEVEL={name!r}: expected DEBUG, INFO, WARNING or ERROR")
    handler = RichHandler(level, console, show_path=False, rich_tracebacks=True)
    logger = logging.getLogger("agentrl")
    logger.handlers = [handler]
    logger.setLevel(min(level, logging.INFO))
    logger.propagate = False


class RunLog(logging.FileHandler):
    """Writes to a run's log; what is logged before the run has made its folder waits for it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True)
        self.setFormatter(JsonLines())
        self._folder = path.parent
        self._early: list[logging.LogRecord] = []

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._early.append(record)
        if not self._folder.is_dir():
            return
        ready, self._early = self._early, []
        for waiting in ready:
            super().emit(waiting)


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Append every record of INFO and above to a file of JSON lines."""
    logger = logging.getLogger("agentrl")
    handler = RunLog(path)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
