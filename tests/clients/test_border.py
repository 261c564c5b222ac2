import asyncio
import importlib
import shutil
import ssl
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from agentrl.clients.border import RefusedError, TransientError, border, retry_after_s
from agentrl.clients.client import HttpClient

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


def test_a_date_in_retry_after_is_a_pause() -> None:
    then = formatdate(time.time() + 60, usegmt=True)
    assert 55 < retry_after_s({"retry-after": then}) <= 60
    assert retry_after_s({"retry-after": formatdate(0, usegmt=True)}) == 0
    assert retry_after_s({"retry-after": "soon"}) == 0


async def test_a_certificate_that_nobody_trusts_is_refused_once(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = ["-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=localhost", "-days", "1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    if shutil.which("openssl") is None:
        pytest.skip("making a certificate needs openssl")
    subprocess.run(["openssl", "req", *words, *files], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    client = HttpClient()
    try:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(RefusedError, match=r"CERTIFICATE_VERIFY_FAILED.*SSL_CERT_FILE"):
            await client.ask("GET", f"https://localhost:{port}/", timeout_s=10)
    finally:
        await client.close()
        listener.close()
