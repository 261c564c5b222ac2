"""The `local` backend: the fork server as a plain child process, for when walls are not needed.

It limits time, output, memory and files, and nothing else: programs can read this user's files
and reach the network. It refuses to start unless the configuration says `unsafe: true`.
"""

import json
import os
import shutil
import sys
import tempfile
import uuid
from typing import Any

from typing_extensions import override

from agentrl.config.sandbox import LocalSandboxConfig
from agentrl.errors import NotReadyError, SandboxError
from agentrl.sandbox.guest import Berth, Guest, ProcessGuest, Spawner, guest_folder


class LocalSpawner(Spawner):
    """Starts fork servers without walls."""

    name = "local"

    def __init__(self, config: LocalSandboxConfig) -> None:
        self._unsafe = config.unsafe
        self._box: str | None = None

    @override
    async def prepare(self) -> None:
        """Refuse unless asked for as unsafe.

        Raises:
            NotReadyError: `unsafe` is not set, or this is not Linux.
        """
        if not self._unsafe:
            raise NotReadyError(
                "sandbox local: programs would run with no isolation at all; use "
                "sandbox.type=docker or bubblewrap, or say sandbox.unsafe=true"
            )
        if sys.platform != "linux":
            raise NotReadyError(f"sandbox local: needs Linux, got {sys.platform}; use docker")
        self._box = tempfile.mkdtemp(prefix="agentrl-local-")

    @override
    async def spawn(self, berth: Berth, settings: dict[str, Any]) -> Guest:
        sandbox_id = f"local-{uuid.uuid4().hex[:12]}"
        box = f"{self._box}/{sandbox_id}"
        settings = {**settings, "box": box, "jail": "process", "seccomp": False}
        command = [sys.executable, "-s", "-E", f"{guest_folder()}/supervisor.py"]
        try:
            return await ProcessGuest.start(
                sandbox_id, [*command, json.dumps(settings)], {"PATH": os.environ.get("PATH", "")}
            )
        except OSError as error:
            raise SandboxError(f"the local fork server did not start: {error}") from error

    @override
    def isolation(self) -> str:
        return "local: NO isolation (this user's files and network are open to programs)"

    @override
    async def close(self) -> None:
        if self._box is not None:
            shutil.rmtree(self._box, ignore_errors=True)
