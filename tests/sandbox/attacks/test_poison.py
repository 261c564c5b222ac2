"""What a program leaves in its interpreter for the next one."""

from collections.abc import Awaitable, Callable

import pytest

from agentrl.contracts.sandbox import RunResult, RunStatus

pytestmark = pytest.mark.asyncio(loop_scope="session")
Attack = Callable[..., Awaitable[RunResult]]


async def test_modules_paths_and_environment_are_fresh(attack: Attack) -> None:
    code = """
import builtins, json, os, sys
os.environ.update(EVIL="1", PYTHONPATH="/tmp", LD_PRELOAD="/tmp/evil.so")
sys.path.insert(0, "/tmp/evil"); sys.modules["evil"] = sys; builtins.evil = 1
json.loads = lambda text: "evil"; builtins.print = None
os.umask(0o777)
open("json.py", "w").write("raise SystemExit('evil')")
open("/tmp/sitecustomize.py", "w").write("raise SystemExit('evil')")
"""
    assert (await attack(code)).status is RunStatus.OK


async def test_random_numbers_differ_between_programs(attack: Attack) -> None:
    code = "import random, uuid; print(random.random(), uuid.uuid4())"
    first, second = (await attack(code)).stdout, (await attack(code)).stdout
    assert first != second


async def test_the_servers_modules_are_not_importable(attack: Attack) -> None:
    code = """
import importlib
for name in ("frames", "zygote", "supervisor", "jail"):
    try: module = importlib.import_module(name)
    except ImportError: continue
    # A package of the same name may be installed: it comes with vLLM.
    if "site-packages" not in str(module.__file__): print(name, module.__file__)
"""
    assert (await attack(code)).stdout == ""
