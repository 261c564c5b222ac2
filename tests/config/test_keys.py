"""Every configuration key is known here and read somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from agentrl.config.run import RunConfig

PACKAGE = Path(__file__).parent.parent.parent / "agentrl"
KEYS = (Path(__file__).parent / "keys.txt").read_text(encoding="utf-8").split()
NOT_READ_BY_NAME = {
    # Read as a whole: handed on by `model_dump`, compared, or the tag of a union.
    "type",
}


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if field.exclude:
            continue
        sections = list(_sections(field.annotation))
        if not sections:
            yield prefix + name
        for section in sections:
            yield from keys(section, f"{prefix}{name}.")


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def test_no_key_comes_or_goes_unnoticed() -> None:
    assert sorted(set(keys(RunConfig))) == KEYS


@pytest.mark.parametrize("name", sorted({key.rpartition(".")[2] for key in KEYS}))
def test_every_key_is_read_by_something(name: str) -> None:
    if name in NOT_READ_BY_NAME:
        return
    readers = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "config"]
    pattern = re.compile(rf"\.{name}\b|[\"']{name}[\"']")
    assert any(pattern.search(path.read_text(encoding="utf-8")) for path in readers)
