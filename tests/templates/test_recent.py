"""What was made last is not made again."""

import pytest

from agentrl.errors import RenderError
from agentrl.templates.recent import Recent


def test_what_was_made_is_kept_by_its_key() -> None:
    recent: Recent[str] = Recent()
    assert recent.get("a", lambda: "made") == "made"
    assert recent.get("a", lambda: "made anew") == "made"
    assert recent.get("b", lambda: "another") == "another"


def test_the_oldest_goes_first() -> None:
    recent: Recent[int] = Recent(most=2)
    for number, key in enumerate("abc"):
        recent.get(key, lambda number=number: number)  # type: ignore[misc]
    assert [recent.get(key, lambda: 9) for key in "bca"] == [1, 2, 9]


def test_what_could_not_be_made_is_tried_again() -> None:
    def refuse() -> str:
        raise RenderError("not now")

    recent: Recent[str] = Recent()
    with pytest.raises(RenderError):
        recent.get("a", refuse)
    assert recent.get("a", lambda: "made") == "made"
