from agentrl.contracts.failure import Failure
from agentrl.errors import InfraError, PluginError, RolloutError, boundary


def caught(error: Exception) -> Failure:
    try:
        with boundary("tool 'x'"):
            raise error
    except RolloutError as failure:
        return Failure.of(failure)


def test_a_failure_keeps_what_was_raised_and_what_it_was_taken_for() -> None:
    failure = caught(KeyError("x"))
    assert (failure.kind, failure.type) == (PluginError.__name__, "KeyError")
    assert failure.message == "tool 'x': KeyError: 'x'"
    assert "raise error" in failure.traceback
    assert "KeyError: 'x'\n\nThe above exception was the direct cause" in failure.traceback


def test_a_typed_error_is_its_own_kind_and_type() -> None:
    failure = caught(InfraError("down"))
    assert (failure.kind, failure.type, failure.message) == ("InfraError", "InfraError", "down")


def test_the_chain_behind_a_typed_error_is_kept() -> None:
    error = InfraError("the judge is down")
    error.__cause__ = ConnectionRefusedError("port 80")
    assert caught(error).type == "ConnectionRefusedError"
    assert "port 80" in caught(error).traceback


def test_an_exception_that_cannot_be_shown_is_a_failure_like_any_other() -> None:
    class Rude(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert caught(Rude()).message == "tool 'x': Rude (it cannot be shown as text)"
    assert caught(Rude()).type == "Rude"
