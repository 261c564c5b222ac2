"""Reading datasets: a local file or a hub name becomes a list of rows."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agentrl.errors import ConfigError, NotReadyError

Row = Mapping[str, Any]


def read_rows(spec: str, *, split: str) -> list[Row]:
    """Read all rows of `spec`: a .jsonl, .json or .parquet file, or `hub/name[:config][:split]`.

    Raises:
        ConfigError: it is not there, is empty, or cannot be parsed.
        NotReadyError: a package that the format needs is not installed.
    """
    path = Path(spec).expanduser()
    if path.suffix in (".jsonl", ".json"):
        rows: list[Row] = list(_read_jsonl(path))
    elif path.suffix == ".parquet":
        rows = _load("parquet", where=spec, data_files=str(_existing(path)), split="train")
    elif path.exists() or path.suffix:
        raise ConfigError(f"data file {spec}: expected .jsonl, .json or .parquet")
    else:
        name, _, rest = spec.partition(":")
        config, _, named_split = rest.partition(":")
        rows = _load(name, where=spec, name=config or None, split=named_split or split)
    if not rows:
        raise ConfigError(f"data file {spec} is empty; expected at least one row")
    return rows


def _read_jsonl(path: Path) -> Iterator[Row]:
    try:
        text = _existing(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"data file {path}: {error}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"data file {path}, line {number}: not JSON: {error.msg}") from error
        if not isinstance(row, dict):
            raise ConfigError(f"data file {path}, line {number}: expected an object, got {row!r}")
        yield row


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"data file {path}: no such file")
    return path


def _load(source: str, *, where: str, **kwargs: Any) -> list[Row]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise NotReadyError(
            f"data {where!r} needs the `datasets` package: pip install 'agentrl-toolkit[train]'"
        ) from error
    try:
        return list(load_dataset(source, **kwargs))
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())[:300]
        raise ConfigError(f"data {where!r} cannot be loaded: {why}") from error
