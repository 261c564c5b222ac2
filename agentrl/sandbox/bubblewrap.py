"""The bubblewrap backend: Linux namespaces around the fork server, no daemon needed.

Started by root, the server keeps SETUID and SETGID and gives each slot a user of its own, and
cgroups bound memory, processes and CPU. Started by an ordinary user, everything happens in a user
namespace, each program gets a PID namespace, and memory is bounded by rlimits.
"""

import asyncio
import json
import os
import shutil
import sys
import uuid
from pathlib import Path
from typing import Any

from typing_extensions import override

from agentrl.config.sandbox import BubblewrapOptions, PoolConfig
from agentrl.errors import NotReadyError, SandboxError
from agentrl.sandbox.cgroup import Cgroups
from agentrl.sandbox.guest import Berth, Guest, ProcessGuest, Spawner, guest_folder

BOX = "/box"
GUEST = "/opt/agentrl"
SHARED_MEMORY_BYTES = 16 * 1024 * 1024
SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/etc/mime.types")
DEVICES = ("null", "zero", "full", "random", "urandom")
DEVICE_LINKS = {"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
PROBE_TIMEOUT_S = 10.0
REMEDY = "install it (`apt-get install bubblewrap`), or start Docker and set sandbox.type=docker"


class BubblewrapSpawner(Spawner):
    """Starts fork servers inside bubblewrap."""

    name = "bubblewrap"

    def __init__(self, config: PoolConfig, options: BubblewrapOptions) -> None:
        self._config = config
        self._python = options.python or sys.executable
        self._root = os.geteuid() == 0
        if not self._root:
            self.most_slots = 1  # one user for all: neighbours could read each other's files
        self._cgroups = Cgroups()

    @override
    async def prepare(self) -> None:
        """Run one empty sandbox.

        Raises:
            NotReadyError: bubblewrap is missing, or the kernel refuses what it needs.
        """
        if shutil.which("bwrap") is None:
            raise NotReadyError(f"sandbox bubblewrap: no `bwrap` on the PATH; {REMEDY}")
        command = [*self._walls(slots=1), "--", self._inside(), "-I", "-c", "pass"]
        probe = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                _, stderr = await probe.communicate()
        except TimeoutError:
            probe.kill()
            await probe.wait()
            raise NotReadyError("sandbox bubblewrap: an empty sandbox did not end") from None
        if probe.returncode != 0:
            reason = stderr.decode("utf-8", "replace").strip()
            raise NotReadyError(f"sandbox bubblewrap: {reason}; is it allowed here? Else {REMEDY}")
        self._cgroups.open()

    @override
    async def spawn(self, berth: Berth, settings: dict[str, Any]) -> Guest:
        sandbox_id = f"bwrap-{uuid.uuid4().hex[:12]}"
        jail = "uid" if self._root else "namespace"
        settings = {**settings, "box": BOX, "jail": jail, "seccomp": True}
        command = [
            *self._walls(slots=len(berth.uids)),
            *self._cgroups.binds(sandbox_id),
            *("--remount-ro", "/", "--"),
            *(self._inside(), "-s", "-E", f"{GUEST}/supervisor.py", json.dumps(settings)),
        ]
        try:
            command = self._cgroups.enter(sandbox_id, self._config, len(berth.uids), command)
            guest = await ProcessGuest.start(sandbox_id, command, {"PATH": os.environ["PATH"]})
        except OSError as error:
            raise SandboxError(f"bubblewrap did not start: {error}") from error
        return _Walled(guest, self._cgroups)

    @override
    def isolation(self) -> str:
        who = (
            "a user per slot" if self._root else "a user namespace and a PID namespace per program"
        )
        return (
            f"bubblewrap: PID, network, IPC, UTS and mount namespaces, read-only root, seccomp, "
            f"{who}, {self._cgroups.describe()}"
        )

    @override
    async def close(self) -> None:
        self._cgroups.close()

    def _walls(self, slots: int) -> list[str]:
        walls = ["bwrap", "--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"]
        walls += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
        walls += ["--unshare-cgroup-try", "--hostname", "sandbox", "--cap-drop", "ALL"]
        if self._root:
            walls += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        else:
            walls += ["--unshare-user", "--uid", "1000", "--gid", "1000"]
            walls += ["--cap-add", "CAP_SYS_ADMIN"]
        walls += self._files()
        walls += ["--proc", "/proc", *_devices()]
        walls += ["--size", str(SHARED_MEMORY_BYTES), "--perms", "1777", "--tmpfs", "/dev/shm"]
        disk = self._config.disk_mb * slots * 1024 * 1024
        walls += ["--size", str(disk), "--perms", "0755", "--tmpfs", BOX]
        walls += ["--symlink", f"{BOX}/0/tmp", "/tmp", "--perms", "0755", "--dir", "/var"]
        return [*walls, "--symlink", "/tmp", "/var/tmp", "--chdir", "/"]

    def _files(self) -> list[str]:
        binds: list[str] = []
        for folder in SYSTEM_FOLDERS:
            path = Path(folder)
            if path.is_symlink():
                binds += ["--symlink", os.readlink(folder), folder]
            elif path.is_dir():
                binds += ["--ro-bind", folder, folder]
        binds += ["--perms", "0755", "--dir", "/etc"]
        for file in SYSTEM_FILES:
            binds += ["--ro-bind-try", file, file]
        for prefix, inside in self._prefixes().items():
            # Folders above the bind would be closed to the slots' users (home folders often are).
            for parent in reversed(Path(inside).parents[:-1]):
                binds += ["--perms", "0755", "--dir", str(parent)]
            binds += ["--ro-bind", prefix, inside]
        return [*binds, "--ro-bind", str(guest_folder()), GUEST]

    def _inside(self) -> str:
        """Return the interpreter's path within the walls."""
        for prefix, inside in self._prefixes().items():
            if self._python.startswith(f"{prefix}/"):
                return inside + self._python.removeprefix(prefix)
        return self._python

    def _prefixes(self) -> dict[str, str]:
        """Return the interpreter's own folders, if not under /usr already, and where they go.

        Inside, /tmp is a slot's own: what lies there outside is moved.
        """
        if self._python == sys.executable:
            found = {sys.prefix, sys.base_prefix}
        else:
            real = Path(self._python).resolve().parent.parent
            found = {str(Path(self._python).parent.parent.absolute()), str(real)}
        own = sorted(path for path in found if not path.startswith("/usr") and path != "/")
        own_tmp = ("/tmp/", "/var/tmp/", f"{BOX}/")
        return {p: f"/opt/python-{i}" if p.startswith(own_tmp) else p for i, p in enumerate(own)}


def _devices() -> list[str]:
    """Return options for a minimal /dev.

    Not bubblewrap's own `--dev`: for its terminals it nests a second user namespace, in which the
    fork server would have no power over the first one's PID namespace.
    """
    options = ["--perms", "0755", "--dir", "/dev"]
    for name in DEVICES:
        options += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for name, target in DEVICE_LINKS.items():
        options += ["--symlink", f"/proc/self/{target}", f"/dev/{name}"]
    return options


class _Walled(Guest):
    """A bubblewrap process and the control group around it."""

    def __init__(self, guest: ProcessGuest, cgroups: Cgroups) -> None:
        self.sandbox_id = guest.sandbox_id
        self._guest, self._cgroups = guest, cgroups

    @override
    async def read(self) -> bytes:
        return await self._guest.read()

    @override
    async def write(self, data: bytes) -> None:
        await self._guest.write(data)

    @override
    async def last_words(self) -> str:
        return await self._guest.last_words()

    @override
    async def end(self) -> None:
        """Kill the sandbox, then remove its control group.

        The server inside loses bubblewrap's die-with-parent when it changes users, and would end
        only when it reads the end of its input; the control group reaches it at once.
        """
        self._cgroups.kill(self.sandbox_id)
        await self._guest.end()
        await self._cgroups.remove(self.sandbox_id)
