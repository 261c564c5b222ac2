"""Where log records go: warnings to the screen, everything to the run's `log.jsonl`."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

from agentrl.errors import ConfigError


class JsonLines(logging.Formatter):
    """One JSON object a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record."""
        fields = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
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


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Append every record of INFO and above to a file of JSON lines."""
    logger = logging.getLogger("agentrl")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
