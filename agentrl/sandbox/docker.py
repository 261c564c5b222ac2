"""The Docker backend: hardened containers, controlled over the Docker SDK.

Frames travel over the container's attach stream, so nothing is mounted and remote daemons and
other runtimes (gVisor) work alike. A container's input is ours alone: when we are gone it ends,
the fork server sees that, exits, and the daemon removes the container.
"""

import asyncio
import json
import logging
import math
import os
import time
import uuid
from typing import Any

from typing_extensions import override

from agentrl.config.sandbox import DockerOptions, PoolConfig
from agentrl.errors import NotReadyError, SandboxError
from agentrl.sandbox.attach import AttachStream, attach
from agentrl.sandbox.guest import Berth, Guest, Spawner
from agentrl.sandbox.image import ensure_image
from agentrl.sandbox.labels import Labels, Owner, reap

logger = logging.getLogger(__name__)

BOX = "/box"
GUEST = "/opt/agentrl"
MEGABYTE = 1024 * 1024
OVERHEAD_MB = 96
SHARED_MEMORY_MB = 16
CPU_PERIOD_US = 100_000


class DockerSpawner(Spawner):
    """Starts fork servers in containers."""

    name = "docker"

    def __init__(self, config: PoolConfig, options: DockerOptions) -> None:
        self._config, self._options = config, options
        self._client: Any = None
        self._image = ""
        self._labels = Labels(owner=Owner.myself(), expires_at=time.time() + config.expire_s)

    @override
    async def prepare(self) -> None:
        """Reach the daemon, remove dead owners' containers, find or build the image.

        Raises:
            NotReadyError: no daemon answers, the runtime is not installed, or there is no image.
        """
        self._client = await connect(self._options, self._config.workers)
        if self._options.runtime is not None:
            await self._check_runtime(self._options.runtime)
        await asyncio.to_thread(reap, self._client)
        self._image = await ensure_image(self._client, self._options)

    async def _check_runtime(self, runtime: str) -> None:
        info = await asyncio.to_thread(self._client.info)
        known = sorted(info.get("Runtimes") or {})
        if runtime not in known:
            raise NotReadyError(
                f"sandbox docker: runtime {runtime!r} is not known to the daemon, which has "
                f"{known}; install it and name it in /etc/docker/daemon.json"
            )

    @override
    async def spawn(self, berth: Berth, settings: dict[str, Any]) -> Guest:
        import docker.errors
        import requests

        settings = {**settings, "box": BOX, "jail": "uid", "seccomp": True}
        command = ["python3", "-s", "-E", f"{GUEST}/supervisor.py", json.dumps(settings)]
        # Named by us, so that it can be removed even if we are cancelled while it is being made.
        name = f"agentrl-{uuid.uuid4().hex[:16]}"
        stream: AttachStream | None = None
        try:
            await asyncio.to_thread(self._create, name, command, len(berth.uids))
            stream = await attach(self._client, name, self._options.connect_timeout_s)
            await asyncio.to_thread(self._client.api.start, name)
        except BaseException as error:
            if stream is not None:
                await stream.close()
            await asyncio.shield(_remove(self._client, name))
            if isinstance(
                error, docker.errors.DockerException | requests.RequestException | OSError
            ):
                raise SandboxError(
                    f"sandbox docker: no container could be started ({error}); look whether the "
                    f"daemon runs (`docker info`) and what its log says"
                ) from error
            raise
        return ContainerGuest(self._client, name, stream)

    def _create(self, name: str, command: list[str], slots: int) -> None:
        api, config = self._client.api, self._config
        disk = config.disk_mb * slots * MEGABYTE
        inodes = config.max_files * slots
        memory = (OVERHEAD_MB + (config.memory_mb + config.disk_mb) * slots) * MEGABYTE
        shared = f"rw,nosuid,nodev,noexec,mode=1777,size={SHARED_MEMORY_MB}m,nr_inodes=1024"
        host = api.create_host_config(
            auto_remove=True,
            network_mode="none",
            ipc_mode="none",
            read_only=True,
            tmpfs={
                BOX: f"rw,nosuid,nodev,exec,mode=0755,size={disk},nr_inodes={inodes}",
                "/dev/shm": shared,
            },
            cap_drop=["ALL"],
            cap_add=["SETUID", "SETGID"],
            security_opt=["no-new-privileges"],
            mem_limit=memory,
            memswap_limit=memory,
            pids_limit=1 + slots * (1 + config.processes),
            # Not nano_cpus: the daemon refuses more of these than the machine has cores.
            cpu_period=CPU_PERIOD_US,
            cpu_quota=int(config.cpus * slots * CPU_PERIOD_US),
            runtime=self._options.runtime,
            log_config={"type": "none"},
        )
        api.create_container(
            self._image,
            name=name,
            command=command,
            entrypoint=[],
            user="0:0",
            working_dir="/",
            hostname="sandbox",
            stdin_open=True,
            labels=self._labels.as_dict(),
            host_config=host,
        )

    @override
    def isolation(self) -> str:
        runtime = self._options.runtime or "the daemon's default runtime"
        return (
            f"docker ({runtime}): no network, read-only root, all capabilities dropped from "
            "programs, no-new-privileges, Docker's and our own seccomp profile, a user per slot, "
            "memory, process and CPU limits"
        )

    @override
    async def close(self) -> None:
        if self._client is not None:
            await asyncio.to_thread(self._client.close)
            self._client = None


class ContainerGuest(Guest):
    """One container, spoken to over its attach stream."""

    def __init__(self, client: Any, name: str, stream: AttachStream) -> None:
        self.sandbox_id = name
        self._client, self._stream = client, stream

    @override
    async def read(self) -> bytes:
        return await self._stream.read()

    @override
    async def write(self, data: bytes) -> None:
        await self._stream.write(data)

    @override
    async def last_words(self) -> str:
        return self._stream.stderr.decode("utf-8", "replace").strip()

    @override
    async def end(self) -> None:
        await self._stream.close()
        await _remove(self._client, self.sandbox_id)


async def connect(options: DockerOptions, threads: int = 8) -> Any:
    """Return a client whose daemon has answered.

    Raises:
        NotReadyError: the SDK is missing, or no daemon answers in time.
    """
    try:
        import docker
        import docker.errors
        import requests
    except ImportError as error:
        raise NotReadyError(
            "sandbox docker: the Docker SDK is not installed; pip install 'agentrl-toolkit[docker]'"
        ) from error

    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if host.startswith("unix://") and not os.path.exists(host.removeprefix("unix://")):
        # The SDK would try all the same, and leave an open socket behind.
        raise NotReadyError(
            f"sandbox docker: no daemon's socket at {host}; start one, set DOCKER_HOST, or use "
            "sandbox.type=bubblewrap"
        )

    def open_client() -> Any:
        timeout_s = math.ceil(options.connect_timeout_s)
        client = docker.from_env(timeout=timeout_s, max_pool_size=max(10, threads), version="auto")
        client.ping()
        return client

    try:
        async with asyncio.timeout(options.connect_timeout_s * 2):
            return await asyncio.to_thread(open_client)
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise NotReadyError(
            f"sandbox docker: no daemon answers ({error}); start one, set DOCKER_HOST, or use "
            "sandbox.type=bubblewrap"
        ) from error


async def _remove(client: Any, name: str) -> None:
    import docker.errors
    import requests

    try:
        await asyncio.to_thread(client.api.remove_container, name, force=True, v=True)
    except docker.errors.APIError as error:
        # Gone already, or being removed because its input has ended: both are what we want.
        logger.debug("container %s: %s", name, error)
    except (requests.RequestException, docker.errors.DockerException) as error:
        logger.info("container %s could not be removed; the next start will: %s", name, error)
