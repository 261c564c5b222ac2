import subprocess
import sys

import pytest

import agentrl


@pytest.mark.parametrize("name", agentrl.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(agentrl, name).__module__.startswith("agentrl.")


def test_what_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = agentrl.nothing


def test_the_exports_are_those_that_type_checkers_see() -> None:
    assert sorted(agentrl.__all__) == sorted(agentrl._HOMES)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import agentrl, sys; print({'torch', 'pydantic', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
