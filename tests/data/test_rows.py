from pathlib import Path

import pytest

from agentrl.data.rows import read_rows
from agentrl.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.jsonl", None, "no such file"),
        ("a.jsonl", "", "is empty"),
        ("a.jsonl", '{"prompt": 1}\n{', "line 2: not JSON"),
        ("a.jsonl", "[1]\n", "expected an object"),
        ("a.txt", "x", r"expected \.jsonl"),
    ],
)
def test_data_that_cannot_be_read_is_one_error(
    tmp_path: Path, name: str, content: str | None, why: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=why):
        read_rows(str(tmp_path / name), split="train")


def test_a_line_separator_inside_a_string_does_not_end_the_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "one\u2028two"}\n', encoding="utf-8")
    assert read_rows(str(tmp_path / "a.jsonl"), split="train") == [{"prompt": "one\u2028two"}]


def test_parquet_rows_are_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist([{"prompt": [{"role": "user", "content": "hi"}]}])
    parquet.write_table(table, tmp_path / "a.parquet")
    rows = read_rows(str(tmp_path / "a.parquet"), split="train")
    assert rows == [{"prompt": [{"role": "user", "content": "hi"}]}]
