"""Where untrusted programs run: which backend, how many at once, and under which limits.

`sandbox` is a union on `type`. `docker`, `bubblewrap` and `local` are one pool with different
walls, so they share every limit; `auto` carries the options of both backends it may choose;
`http` is a client of a sandbox that runs elsewhere and has limits of its own.
"""

import os
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from agentrl.config.base import Section


class LanguageConfig(Section):
    """How programs of one language are compiled and run; `{file}` stands for the source file."""

    file: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    """The source's file name, e.g. `main.rb`."""
    compile: list[str] | None = None
    """The compiler's command line; None for interpreted languages."""
    run: list[str]
    """The command line that runs the program, e.g. `[ruby, "{file}"]`."""
    bounded_address_space: bool = True
    """False for runtimes that reserve far more address space than they use (Node, Java, Go)."""


class DockerOptions(Section):
    """What only the Docker backend reads."""

    image: str | None = None
    """An image made by `agentrl sandbox build`; found or built by itself when unset."""
    base_image: str = "python:3.12-slim-bookworm"
    """The public image that ours is built from."""
    runtime: str | None = None
    """An OCI runtime known to the daemon, e.g. `runsc` for gVisor."""
    connect_timeout_s: PositiveFloat = 10.0
    """How long a call to the daemon may take before it counts as absent."""


class BubblewrapOptions(Section):
    """What only the bubblewrap backend reads."""

    python: str | None = None
    """The interpreter that serves and runs Python programs; the one running agentrl if unset."""


class PoolConfig(Section):
    """How many programs run at once, and the limits that hold for each of them."""

    workers: PositiveInt = Field(default_factory=lambda: max(2, os.cpu_count() or 2))
    """Warm containers (or bubblewrap sandboxes)."""
    slots: PositiveInt = 1
    """Programs at once in one container. 1 gives each its own memory and process limits."""
    max_queue: PositiveInt = 4096
    """Requests that may wait for a slot; further ones are refused."""
    recycle_after: PositiveInt = 1000
    """Executions after which a container is replaced by a fresh one."""
    start_timeout_s: PositiveFloat = 60.0
    """How long one container may take until it answers."""
    expire_s: PositiveFloat = 24 * 3600.0
    """Age at which a container ends itself, whatever became of its owner."""
    memory_mb: PositiveInt = 512
    """The most memory a request may ask for."""
    disk_mb: PositiveInt = 64
    """Size of a program's writable file system, and of its largest file."""
    max_files: PositiveInt = 20_000
    """Files and folders a program may hold (docker; bubblewrap bounds them by memory only)."""
    processes: PositiveInt = 64
    """Processes and threads of one program."""
    cpus: PositiveFloat = 1.0
    """Cores per slot."""
    preload: list[str] = Field(default_factory=list)
    """Python modules imported once per container instead of once per program."""
    languages: dict[str, LanguageConfig] = Field(default_factory=dict)
    """Languages beside (or instead of) the built-in ones."""
    max_sessions: NonNegativeInt = 256
    """Stateful sessions open at once."""
    sessions_per_worker: PositiveInt = 4
    """Sessions that share one container."""
    session_idle_s: PositiveFloat = 1800.0
    """A session without a cell for this long is closed."""


class DockerSandboxConfig(PoolConfig):
    """Containers of a Docker daemon (`DOCKER_HOST` is honoured)."""

    type: Literal["docker"] = "docker"
    docker: DockerOptions = DockerOptions()


class BubblewrapSandboxConfig(PoolConfig):
    """Linux namespaces made by bubblewrap; needs no daemon."""

    type: Literal["bubblewrap"] = "bubblewrap"
    bubblewrap: BubblewrapOptions = BubblewrapOptions()


class AutoSandboxConfig(PoolConfig):
    """Docker when its daemon answers, else bubblewrap, else an error: never silently unsafe."""

    type: Literal["auto"] = "auto"
    docker: DockerOptions = DockerOptions()
    bubblewrap: BubblewrapOptions = BubblewrapOptions()


class LocalSandboxConfig(PoolConfig):
    """Plain child processes of this machine: limits, but no walls."""

    type: Literal["local"] = "local"
    unsafe: bool = False
    """Must be true: programs can read this user's files and use the network."""


class HttpSandboxConfig(Section):
    """A sandbox service: `agentrl sandbox serve`, or a SandboxFusion server."""

    type: Literal["http"] = "http"
    urls: list[str] = Field(min_length=1)
    """Base addresses; the least loaded living one takes the next request."""
    token_env: str = "AGENTRL_SANDBOX_TOKEN"
    """Environment variable that holds the bearer token, when the service wants one."""
    max_connections: PositiveInt = 256
    queue_timeout_s: PositiveFloat = 300.0
    """How long the service may let a request wait, beyond the program's own time-outs."""
    retries: NonNegativeInt = 5
    """Further attempts after 429, 5xx and connection errors, with exponential back-off; all of them
    within twice the time that one may take."""


SandboxConfig = Annotated[
    AutoSandboxConfig
    | DockerSandboxConfig
    | BubblewrapSandboxConfig
    | LocalSandboxConfig
    | HttpSandboxConfig,
    Field(discriminator="type"),
]
