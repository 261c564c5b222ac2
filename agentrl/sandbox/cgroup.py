"""Control groups around bubblewrap sandboxes, where this process may make them.

Version 1 (one hierarchy per controller) and version 2. Groups are named after their owner, so
that those of a dead one are found and removed. Where no group can be made, `describe` says so and
rlimits are all there is.
"""

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import Iterable
from pathlib import Path

from agentrl.config.sandbox import PoolConfig
from agentrl.sandbox.labels import Owner

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "pids", "cpu")
PREFIX = "agentrl"
OVERHEAD_MB = 96
OVERHEAD_PROCESSES = 2  # bubblewrap itself, and the supervisor; each slot adds its zygote
CPU_PERIOD_US = 100_000
REMOVE_ATTEMPTS = 50


class Cgroups:
    """Makes and removes one group per sandbox."""

    def __init__(self) -> None:
        self._parents: dict[str, Path] = {}
        self._version = 0
        self._made: set[str] = set()
        self._owner = Owner.myself()

    def open(self) -> None:
        """Find out which controllers we may use, and remove the groups of dead owners."""
        self._version = 2 if (ROOT / "cgroup.controllers").exists() else 1
        for controller, parent in self._candidates():
            if os.access(parent, os.W_OK):
                self._parents[controller] = parent
        for parent in set(self._parents.values()):
            _remove_orphans(parent)

    def _candidates(self) -> Iterable[tuple[str, Path]]:
        if self._version == 1:
            return [(name, ROOT / name) for name in CONTROLLERS]
        available = (ROOT / "cgroup.subtree_control").read_text(encoding="ascii").split()
        return [(name, ROOT) for name in CONTROLLERS if name in available]

    def describe(self) -> str:
        """Say what is bounded by control groups."""
        if not self._parents:
            return "no control groups (limits are rlimits only)"
        return f"control groups v{self._version} for {', '.join(self._parents)}"

    def enter(
        self, sandbox_id: str, config: PoolConfig, slots: int, command: list[str]
    ) -> list[str]:
        """Make the sandbox's group; returns the command that joins it and then runs `command`."""
        folders = self._folders(sandbox_id)
        for folder in folders:
            folder.mkdir()
        if folders:
            self._made.add(sandbox_id)
        for path, value in self._limits(sandbox_id, config, slots):
            path.write_text(value, encoding="ascii")
        if not folders:
            return command
        joins = "; ".join(f"echo $$ > {shlex.quote(str(f))}/cgroup.procs" for f in folders)
        return ["/bin/sh", "-ec", f'{joins}; exec "$@"', "sh", *command]

    def binds(self, sandbox_id: str) -> list[str]:
        """Return bubblewrap options that show the guest its own counters, as Docker does."""
        if self._version == 2:
            folder = self._folders(sandbox_id)
            return ["--ro-bind", str(folder[0]), str(ROOT)] if folder else []
        options: list[str] = []
        for name in ("memory", "pids"):
            if name in self._parents:
                folder_v1 = self._parents[name] / self._name(sandbox_id)
                options += ["--ro-bind", str(folder_v1), str(ROOT / name)]
        return options

    def kill(self, sandbox_id: str) -> None:
        """Kill every process of the sandbox's group."""
        for folder in self._folders(sandbox_id)[:1] if sandbox_id in self._made else []:
            with contextlib.suppress(OSError):
                for pid in (folder / "cgroup.procs").read_text(encoding="ascii").split():
                    os.kill(int(pid), signal.SIGKILL)

    async def remove(self, sandbox_id: str) -> None:
        """Remove the sandbox's group once its last process has gone."""
        for folder in self._folders(sandbox_id) if sandbox_id in self._made else []:
            for _ in range(REMOVE_ATTEMPTS):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    break
        self._made.discard(sandbox_id)

    def close(self) -> None:
        """Remove what is still there."""
        for sandbox_id in self._made:
            for folder in self._folders(sandbox_id):
                with contextlib.suppress(OSError):
                    folder.rmdir()
        self._made.clear()

    def _name(self, sandbox_id: str) -> str:
        return f"{PREFIX}-{self._owner.pid}-{self._owner.start}-{sandbox_id}"

    def _folders(self, sandbox_id: str) -> list[Path]:
        parents = sorted(set(self._parents.values()))
        return [parent / self._name(sandbox_id) for parent in parents]

    def _limits(
        self, sandbox_id: str, config: PoolConfig, slots: int
    ) -> Iterable[tuple[Path, str]]:
        name = self._name(sandbox_id)
        memory = (OVERHEAD_MB + (config.memory_mb + config.disk_mb) * slots) * 1024 * 1024
        processes = OVERHEAD_PROCESSES + slots * (1 + config.processes)
        quota = int(config.cpus * slots * CPU_PERIOD_US)
        if self._version == 2:
            values = {
                "memory": [("memory.max", str(memory)), ("memory.swap.max", "0")],
                "pids": [("pids.max", str(processes))],
                "cpu": [("cpu.max", f"{quota} {CPU_PERIOD_US}")],
            }
        else:
            values = {
                "memory": [
                    ("memory.limit_in_bytes", str(memory)),
                    ("memory.memsw.limit_in_bytes", str(memory)),
                ],
                "pids": [("pids.max", str(processes))],
                "cpu": [("cpu.cfs_quota_us", str(quota))],
            }
        for controller, parent in self._parents.items():
            for file, value in values[controller]:
                path = parent / name / file
                if path.exists():  # swap accounting may be compiled out
                    yield path, value


def _remove_orphans(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}-*"):
        _, pid, start, *_ = [*folder.name.split("-"), "", "", ""]
        if pid.isdigit() and start.isdigit() and not Owner(pid=int(pid), start=int(start)).alive():
            with contextlib.suppress(OSError):
                folder.rmdir()
