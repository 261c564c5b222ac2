import importlib
import subprocess
import sys
from typing import Any

import pytest

from agentrl.clients.border import RefusedError, TransientError, border

URL = "http://127.0.0.1:9/v1"


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
async def test_both_generations_of_httpx_end_at_the_border(library: str) -> None:
    httpx = pytest.importorskip(library, reason=f"{library} is not installed")
    async with httpx.AsyncClient() as client:
        with pytest.raises(TransientError, match=URL) as caught, border(URL):
            await client.get(URL)
    assert isinstance(caught.value.__cause__, httpx.ConnectError)
    assert not caught.value.late
    with pytest.raises(TransientError) as caught, border(URL):
        raise httpx.ReadTimeout("late")
    assert caught.value.late


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_a_status_that_a_library_raises_keeps_its_meaning(library: str) -> None:
    httpx = pytest.importorskip(library, reason=f"{library} is not installed")
    request = httpx.Request("GET", URL)
    busy = httpx.Response(429, headers={"Retry-After": "3"}, text="full", request=request)
    with pytest.raises(TransientError, match="429 full") as caught, border(URL):
        busy.raise_for_status()
    assert (caught.value.status, caught.value.retry_after_s) == (429, 3)
    missing = httpx.Response(404, request=request)
    refusal = pytest.raises(RefusedError, match=r"404 .*; correct the path")
    with refusal as refused, border(URL, remedy="correct the path"):
        missing.raise_for_status()
    assert refused.value.status == 404


async def test_what_openai_raises_ends_at_the_border() -> None:
    openai: Any = pytest.importorskip("openai", reason="openai is not installed")
    async with openai.AsyncOpenAI(base_url=URL, api_key="x", max_retries=0) as client:
        with pytest.raises(TransientError, match=URL), border(URL):
            await client.models.list()


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), border(URL):
        _ = 1 / 0
    with pytest.raises(TransientError, match="no route") as caught, border(URL):
        raise OSError("no route")
    with pytest.raises(TransientError) as again, border("http://elsewhere"):
        raise caught.value
    assert again.value is caught.value


def test_a_library_that_is_installed_has_the_exceptions_that_are_named() -> None:
    from agentrl.clients.border import _BASES

    for library, names in _BASES.items():
        try:
            module = importlib.import_module(library)
        except ImportError:
            continue
        assert any(issubclass(getattr(module, name, int), Exception) for name in names), library


def test_the_border_imports_none_of_them() -> None:
    code = (
        "import sys, agentrl.clients.border;"
        "assert not {'httpx', 'httpx2', 'openai', 'mcp'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
