"""GSM8K's answer format, `#### n`, read strictly and compared as a number.

Shared by the `gsm8k` tool, interaction and task. Strict means: only what follows the last
`####` counts, up to the end of its line, and it must be one number in full, with at most a
currency sign before it and a unit of words after it. "#### 12 or 13" answers nothing.
"""

import re
from decimal import Decimal

MARKER = "####"

_NUMBER = re.compile(
    r"""
    (?P<sign> [-+\u2212]? ) \s* [$\u20ac\u00a3]? (?P<inner_sign> [-+\u2212]? )
    (?P<digits> [0-9]{1,3}(?:,[0-9]{3})+ | [0-9]+ )? (?P<decimals> \.[0-9]+ )? \.?
    (?: \s*% | [\s-]*[^\W\d_]+ (?: [\s/-]+[^\W\d_]+ )* \.? )?
    """,
    re.VERBOSE,
)
_MAX_LENGTH = 64
_RELATIVE_TOLERANCE = Decimal("1e-6")


def extract_answer(text: str) -> str | None:
    """Return the text after the last `####` up to the end of its line; None if there is none.

    An empty answer is None too.
    """
    _, marker, after = text.rpartition(MARKER)
    answer = after.lstrip(" \t").split("\n", 1)[0].strip()
    return answer if marker and answer else None


def parse_number(text: str) -> Decimal | None:
    """Read one number such as `-1,080.50`, `$3`, `50%` or `12 clips`; None if it is not one."""
    text = text.strip()
    match = _NUMBER.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None or not (match["digits"] or match["decimals"]):
        return None
    if match["sign"] and match["inner_sign"]:
        return None
    sign = -1 if (match["sign"] or match["inner_sign"]) in ("-", "\u2212") else 1
    digits = (match["digits"] or "0").replace(",", "")
    return sign * Decimal(digits + (match["decimals"] or ""))


def numbers_equal(left: Decimal, right: Decimal) -> bool:
    """Compare up to the noise of binary floats (one part in a million)."""
    return abs(left - right) <= _RELATIVE_TOLERANCE * max(Decimal(1), abs(right))


def truth_number(ground_truth: object) -> Decimal:
    """Read a ground truth: a number, its text, or a whole solution that ends in `#### n`.

    Raises:
        ValueError: there is no number in it.
    """
    text = str(ground_truth)
    number = parse_number(extract_answer(text) or text)
    if number is None:
        raise ValueError(f"ground truth {text!r} is neither a number nor ends in '{MARKER} n'")
    return number


def answer_is(text: str, ground_truth: object) -> bool:
    """Whether a bare answer (with or without the marker) equals the ground truth."""
    number = parse_number(extract_answer(text) or text)
    return number is not None and numbers_equal(number, truth_number(ground_truth))


def response_is_correct(response: str, ground_truth: object) -> bool:
    """Whether a response ends in `#### n` with the right n."""
    answer = extract_answer(response)
    return answer is not None and answer_is(answer, ground_truth)
