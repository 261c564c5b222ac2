"""Another Python that has vLLM: what is in it, and its server as a process of ours.

vLLM pins torch and transformers; in an environment of its own it pins nothing of the trainer's.
The server is vLLM's own, and nothing of agentrl is imported in it.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentrl.config.engine import VllmEngineConfig
from agentrl.engines.vllm.launch import CPU_BLOCK_TOKENS, ModelSpec
from agentrl.engines.vllm.versions import DISTRIBUTIONS, check_release
from agentrl.errors import ConfigError, NotReadyError

PROBE_TIMEOUT_S, END_TIMEOUT_S = 60.0, 20.0
NEEDED = ("vllm", "torch", "transformers", "fastapi", "uvicorn")
SERVER = "vllm.entrypoints.openai.api_server"
_PROBE = """
import importlib.metadata as metadata, importlib.util, json, sys
missing = [name for name in sys.argv[1].split(",") if importlib.util.find_spec(name) is None]
found = {d.metadata["Name"]: d.version for d in metadata.distributions() if d.metadata["Name"]}
print(json.dumps({"missing": missing, "versions": found}))
"""
# It ends with the trainer, even one that was killed: its standard input ends then.
_LAUNCHER = """
import os, runpy, signal, sys, threading
def watch():
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)
if __name__ == "__main__":
    threading.Thread(target=watch, daemon=True).start()
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def check_python(python: str) -> str:
    """Return the release of vLLM that a Python has.

    Raises:
        ConfigError: `python` is not a Python interpreter.
        NotReadyError: it lacks vLLM or what its server needs, or has an unsupported release.
    """
    where = f"engine.python: {python}"
    if not os.access(python, os.X_OK) or Path(python).is_dir():
        raise ConfigError(
            f"{where}: expected a Python interpreter, found no program there; give the path of "
            "the environment's bin/python"
        )
    try:
        done = subprocess.run(
            [python, "-c", _PROBE, ",".join(NEEDED)],
            env=_clean_environment(),
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            check=True,
        )
        found = json.loads(done.stdout)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        raise ConfigError(
            f"{where}: expected a Python interpreter that starts, got {error}; run it by hand to "
            "see what it says"
        ) from error
    versions = [found["versions"][name] for name in DISTRIBUTIONS if name in found["versions"]]
    if "vllm" in found["missing"] or not versions:
        check_release(None, where=where)
    if found["missing"]:
        names = ", ".join(found["missing"])
        raise NotReadyError(
            f"{where}: vLLM {versions[0]} is there, but not {names}, which its server needs; "
            f"install what vLLM requires with `{python} -m pip install` there"
        )
    check_release(versions[0], where=where)
    return str(versions[0])


def start_server(
    python: str, folder: str, port: int, spec: ModelSpec, config: VllmEngineConfig, log: Path
) -> subprocess.Popen[bytes]:
    """Start vLLM's server with a model's folder and placeholder weights; it is not up yet."""
    environment = _clean_environment() | {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}
    if spec.device == "cpu" and config.cpu_threads:
        environment["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{config.cpu_threads - 1}"
    words = list(_words(_arguments(folder, port, spec, config)))
    with log.open("ab") as file:
        return subprocess.Popen(
            [python, "-c", _LAUNCHER, SERVER, *words],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end_server(server: subprocess.Popen[bytes]) -> None:
    """End a server and the processes that it started; at once if it does not end by itself."""
    server.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.wait(END_TIMEOUT_S)
    kill_server(server)


def kill_server(server: subprocess.Popen[bytes]) -> None:
    """End a server and what is left of its processes, without asking."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    if server.stdin is not None:
        server.stdin.close()


def _arguments(folder: str, port: int, spec: ModelSpec, config: VllmEngineConfig) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "model": folder,
        "served_model_name": "policy",
        "load_format": "dummy",
        # Token ids go in and come out: no tokenizer is needed.
        "skip_tokenizer_init": True,
        "tokens_only": True,
        "generation_config": "vllm",
        "dtype": spec.dtype,
        "max_model_len": spec.max_tokens,
        "max_num_seqs": config.max_batch,
        "enforce_eager": not config.compile,
        "enable_prefix_caching": True,
        "logprobs_mode": "processed_logprobs",
        "seed": 0,
    }
    if spec.device == "cpu":
        arguments["kv_cache_memory_bytes"] = int(config.kv_cache_gb * 2**30)
        arguments["block_size"] = CPU_BLOCK_TOKENS
    else:
        arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
    return arguments | config.engine_args


def _words(arguments: Mapping[str, Any]) -> Iterator[str]:
    """Write arguments as `vllm serve` takes them on its command line."""
    for name, value in arguments.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            yield flag
        elif isinstance(value, dict | list):
            yield from (flag, json.dumps(value))
        elif value is not False and value is not None:
            yield from (flag, str(value))


def _clean_environment() -> dict[str, str]:
    """Return this process's environment without what points Python at the trainer's packages."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    return {name: value for name, value in os.environ.items() if name not in ours}
