"""`agentrl sandbox`: build the image, serve, run one file, prune, bench."""

import asyncio
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from agentrl.cli.guard import guarded
from agentrl.config.base import Section
from agentrl.config.load import read_yaml, validate
from agentrl.config.sandbox import AutoSandboxConfig, DockerSandboxConfig, SandboxConfig
from agentrl.errors import ConfigError, NotReadyError

app = typer.Typer(no_args_is_help=True, help="Run untrusted programs behind walls.")

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="A YAML file with a `sandbox` section.")
]
Words = Annotated[
    list[str] | None, typer.Argument(help="Overrides of the sandbox section: type=docker ...")
]
KEEP_ALIVE_S = 75  # above the client's own, so that it never meets a closing connection
LANGUAGES = {".py": "python", ".sh": "bash", ".js": "javascript", ".cpp": "cpp", ".cc": "cpp"}


class SandboxFile(Section):
    """A file that holds nothing but a sandbox section (other sections are dropped before)."""

    sandbox: SandboxConfig = AutoSandboxConfig()


def load_sandbox(file: Path | None, words: list[str] | None) -> SandboxConfig:
    """Read the sandbox section and overlay `key=value` words.

    Raises:
        ConfigError: a key, a value or the file is not valid.
    """
    tree: dict[str, Any] = (read_yaml(file) or {}) if file is not None else {}
    section: dict[str, Any] = {"type": "auto", **(tree.get("sandbox") or {})}
    for word in words or ():
        key, equals, text = word.removeprefix("sandbox.").partition("=")
        if not equals:
            raise ConfigError(f"override {word!r}: expected key=value, e.g. type=docker")
        *parents, last = key.split(".")
        node = section
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = yaml.safe_load(text)
    return validate(SandboxFile, {"sandbox": section}, source=str(file or "sandbox")).sandbox


@app.command()
@guarded
def build(
    base: Annotated[str | None, typer.Option(help="The base image to build from.")] = None,
    from_host: Annotated[
        bool, typer.Option("--from-host", help="Copy this machine's Python; needs no registry.")
    ] = False,
    package: Annotated[
        list[str] | None, typer.Option(help="With --from-host: a Python package to copy as well.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="The image's name.")] = None,
) -> None:
    """Build the Docker image that programs run in."""
    from agentrl.sandbox.docker import connect
    from agentrl.sandbox.host_image import build_from_host
    from agentrl.sandbox.image import DIGEST_LABEL, build_from_base, default_tag, guest_digest

    options = DockerSandboxConfig().docker
    client = asyncio.run(connect(options))
    name = tag or default_tag()
    try:
        if from_host:
            build_from_host(client, name, {DIGEST_LABEL: guest_digest()}, package or ())
        else:
            build_from_base(client, base or options.base_image, name)
    finally:
        client.close()
    print(f"built {name}")


@app.command()
@guarded
def run(
    file: Annotated[Path, typer.Argument(help="The program; its ending names the language.")],
    words: Words = None,
    config: Config = None,
    language: Annotated[str | None, typer.Option(help="Overrides the file's ending.")] = None,
    timeout_s: Annotated[float, typer.Option(help="Wall-clock limit in seconds.")] = 10.0,
    memory_mb: Annotated[int, typer.Option(help="Memory limit.")] = 256,
) -> None:
    """Run one file and print what became of it; exits with 0 when the program did."""
    from agentrl.contracts.sandbox import RunRequest, RunResult
    from agentrl.sandbox import open_sandbox

    try:
        code = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"program {file}: {error}") from error
    request = RunRequest(
        code=code,
        language=language or LANGUAGES.get(file.suffix, file.suffix.removeprefix(".")),
        stdin="" if sys.stdin.isatty() else sys.stdin.read(),
        run_timeout_s=timeout_s,
        memory_mb=memory_mb,
    )
    section = load_sandbox(config, ["workers=1", *(words or ())])

    async def once() -> RunResult:
        async with open_sandbox(section) as sandbox:
            return await sandbox.run(request)

    result = asyncio.run(once())
    sys.stdout.write(result.stdout)
    sys.stderr.write(result.stderr)
    ended = f"signal {result.signal}" if result.signal else f"exit code {result.exit_code}"
    figures = f"{result.duration_s:.3f} s, {result.cpu_s:.3f} s CPU, {result.peak_memory_mb:.0f} MB"
    print(f"[{result.status.value}: {ended}, {figures}]", file=sys.stderr)
    raise typer.Exit(0 if result.ok else 1)


@app.command()
@guarded
def serve(
    words: Words = None,
    config: Config = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
    token_env: Annotated[
        str, typer.Option(help="Environment variable with the bearer token to ask for.")
    ] = "AGENTRL_SANDBOX_TOKEN",
    max_body_mb: Annotated[int, typer.Option(help="Largest request body.")] = 64,
    drain_s: Annotated[int, typer.Option(help="Time for running requests at shutdown.")] = 30,
) -> None:
    """Serve programs over HTTP: SandboxFusion's protocol and our own."""
    try:
        import uvicorn

        from agentrl.sandbox.service import Service, ServiceOptions
    except ImportError as error:
        raise NotReadyError(
            f"sandbox serve needs the package {error.name!r}: pip install 'agentrl-toolkit[server]'"
        ) from error
    from agentrl.sandbox import open_sandbox

    token = os.environ.get(token_env)
    if token is None and host not in ("127.0.0.1", "localhost", "::1"):
        raise ConfigError(
            f"sandbox serve on {host} without a token would let anyone run programs; "
            f"set {token_env}"
        )
    options = ServiceOptions(token=token, max_body_bytes=max_body_mb * 1024 * 1024)
    service = Service(open_sandbox(load_sandbox(config, words)), options)
    uvicorn.run(
        service.app(),
        host=host,
        port=port,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=drain_s,
    )


@app.command()
@guarded
def prune(
    everything: Annotated[
        bool, typer.Option("--all", help="Also containers whose owner still runs.")
    ] = False,
) -> None:
    """Remove containers that nobody owns any more, and images of other versions."""
    from agentrl.sandbox.docker import connect
    from agentrl.sandbox.image import remove_outdated
    from agentrl.sandbox.labels import reap

    client = asyncio.run(connect(DockerSandboxConfig().docker))
    try:
        containers = reap(client, everything=everything)
        images = remove_outdated(client)
    finally:
        client.close()
    print(f"removed {len(containers)} containers and {len(images)} images")
    print(*(f"  {name}" for name in (*containers, *images)), sep="\n")


@app.command()
@guarded
def bench(
    words: Words = None,
    config: Config = None,
    executions: Annotated[int, typer.Option(help="How many programs.")] = 500,
    concurrency: Annotated[int, typer.Option(help="How many at once.")] = 8,
) -> None:
    """Measure `print(1+1)` on the configured sandbox."""
    from agentrl.sandbox import open_sandbox
    from agentrl.sandbox.measure import measure

    async def all_rates() -> None:
        async with open_sandbox(load_sandbox(config, words)) as sandbox:
            print(sandbox.isolation())
            for callers in dict.fromkeys((1, concurrency)):
                rate = await measure(sandbox, executions=executions, concurrency=callers)
                print(" ".join(f"{k}={v:.4g}" for k, v in asdict(rate).items()))

    asyncio.run(all_rates())
