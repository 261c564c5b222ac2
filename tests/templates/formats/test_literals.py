from typing import Any

import pytest

from agentrl.templates.formats.literals import literal_end, read_literal
from agentrl.templates.formats.values import ValueFault


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("-1.5e-3", -0.0015),
        ("0x1F", 31),
        ("1_000", 1000),
        ("'a' \"b\"", "ab"),
        ("r'\\d'", "\\d"),
        ("'\\d'", "\\d"),
        ("'''a\n'b'\n'''", "a\n'b'\n"),
        ("(1, [None, null], {'k': true})", [1, [None, None], {"k": True}]),
        ("'true'", "true"),
    ],
)
def test_literals_are_read_as_python_and_json_write_them(source: str, value: Any) -> None:
    assert read_literal(source) == value


@pytest.mark.parametrize(
    "source",
    [
        *("", "x", "f()", "1 2", "1j", "b'x'", "f'{x}'", "'a' 1", "lambda: 1", "[1 for x in y]"),
        *("{1}", "...", "a.b", "--1", "-'a'", "07", "'\\x'", "[1, , 2]", "\0", "9" * 5000),
        *(
            "[" * 65 + "]" * 65,
            "[" * 5000 + "]" * 5000,
            "~" * 5000 + "1",
            "-" * 5000 + "1",
            "1+" * 5000 + "1",
            "not " * 5000 + "1",
        ),
    ],
    ids=lambda source: source[:12],
)
def test_all_else_is_refused(source: str) -> None:
    with pytest.raises(ValueFault, match="is not a literal"):
        read_literal(source)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("1, 2", 1),
        ("'a,)' )", 6),
        ("[1, (2, 3)], x", 11),
        ("{'a': ')'}]", 10),
        ("'''),'''", 8),
        ("'it\\'s,'", 8),
        ("x)", 1),
    ],
)
def test_a_value_ends_before_the_comma_or_bracket_that_is_not_its_own(text: str, end: int) -> None:
    assert literal_end(text, 0) == end


@pytest.mark.parametrize(
    ("text", "why"),
    [("[1, 2", "'[' is not closed"), ("'a", "string is"), ("(1]", "closes nothing")],
)
def test_a_value_without_an_end_is_a_fault(text: str, why: str) -> None:
    with pytest.raises(ValueFault, match=why.replace("[", r"\[")):
        literal_end(text, 0)
