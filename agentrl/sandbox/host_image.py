"""An image made of this machine's own Python, for where no registry can be reached.

The interpreter, its standard library, a shell and a few programs, with the shared libraries that
`ldd` names, copied into a folder and imported. Ready in seconds, some ninety megabytes.
"""

import importlib.util
import logging
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from agentrl.errors import NotReadyError
from agentrl.sandbox.guest import guest_folder

logger = logging.getLogger(__name__)

PROGRAMS = ("sh", "bash", "node", "ls", "cat", "sleep", "head", "seq", "ln", "rm", "mkdir", "env")
LEFT_OUT = shutil.ignore_patterns(
    "test", "tests", "idlelib", "ensurepip", "tkinter", "turtledemo", "lib2to3", "site-packages",
    "dist-packages", "config-3*", "*.opt-*.pyc",
)  # fmt: skip
FOLDERS = ("box", "dev", "etc", "opt/agentrl", "proc", "sys", "usr/local/bin", "usr/local/lib")
LIBRARY_LINE = re.compile(r"(/\S+)(?: \(0x[0-9a-f]+\))")


def build_from_host(
    client: Any, name: str, labels: dict[str, str], packages: Sequence[str] = ()
) -> None:
    """Import an image of this machine's Python under `name`.

    `packages` are installed Python packages to copy as well (for `sandbox.preload`).

    Raises:
        NotReadyError: the daemon refused it.
    """
    import docker.errors
    import requests

    logger.info("building the sandbox image %s from this machine's Python", name)
    changes = ["ENV PATH=/usr/local/bin:/usr/bin:/bin"]
    changes += [f"LABEL {key}={value}" for key, value in labels.items()]
    repository, _, tag = name.partition(":")
    with tempfile.TemporaryDirectory(prefix="agentrl-image-") as folder:
        root, archive = Path(folder, "root"), Path(folder, "root.tar")
        fill_root(root, packages)
        with tarfile.open(archive, "w") as tar:
            tar.add(root, arcname=".", filter=_owned_by_root)
        try:
            client.api.import_image(
                str(archive), repository=repository, tag=tag or "latest", changes=changes
            )
        except (docker.errors.APIError, requests.RequestException) as error:
            raise NotReadyError(f"sandbox image from this machine: {error}") from error


def fill_root(root: Path, packages: Iterable[str] = ()) -> None:
    """Copy everything the image holds into `root`."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    for link in ("tmp", "var/tmp"):
        (root / link).parent.mkdir(exist_ok=True)
        (root / link).symlink_to("/box/0/tmp")
    _copy_python(root, packages)
    for program in PROGRAMS:
        found = shutil.which(program, path="/usr/local/bin:/usr/bin:/bin")
        if found is not None:
            _copy_binary(Path(found), root / "usr/local/bin" / program, root)
    for shell in ("sh", "bash"):
        (root / "bin").mkdir(exist_ok=True)
        if (root / "usr/local/bin" / shell).exists():
            (root / "bin" / shell).symlink_to(f"/usr/local/bin/{shell}")
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n", encoding="ascii")
    for file in (*guest_folder().glob("*.py"), guest_folder() / "seccomp.json"):
        shutil.copy(file, root / "opt/agentrl")


def _copy_python(root: Path, packages: Iterable[str]) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    executable = Path(sys.executable).resolve()
    library = root / "usr/local/lib" / version
    _copy_binary(executable, root / "usr/local/bin" / version, root)
    for alias in ("python3", "python"):
        (root / "usr/local/bin" / alias).symlink_to(version)
    shutil.copytree(sysconfig.get_path("stdlib"), library, symlinks=True, ignore=LEFT_OUT)
    for module in (library / "lib-dynload").glob("*.so"):
        _copy_libraries(module, root)
    for package in packages:
        _copy_package(package, library / "site-packages", root)


def _copy_package(name: str, site: Path, root: Path) -> None:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise NotReadyError(f"package {name!r} is not installed here, so it cannot be copied")
    source = Path(spec.origin)
    site.mkdir(exist_ok=True)
    if source.name != "__init__.py":
        shutil.copy(source, site)
        return
    for folder in (source.parent, source.parent.with_name(f"{name}.libs")):
        if folder.is_dir():
            shutil.copytree(folder, site / folder.name, ignore=shutil.ignore_patterns("tests"))
    for module in (site / name).rglob("*.so"):
        _copy_libraries(module, root)


def _copy_binary(source: Path, target: Path, root: Path) -> None:
    shutil.copy(source.resolve(), target)
    _copy_libraries(source, root)


def _copy_libraries(binary: Path, root: Path) -> None:
    listed = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)
    for match in LIBRARY_LINE.finditer(listed.stdout):
        library = Path(match[1])
        target = root / str(library).lstrip("/")
        if not library.is_relative_to(root) and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library.resolve(), target)


def _owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode |= 0o444 | (0o111 if entry.isdir() else 0)
    return entry
