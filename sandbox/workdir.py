"""A slot's writable places: made before, read after, and emptied between executions.

All of it is done as the slot's own user, so that a link which a program leaves behind leads
nowhere the program could not go itself; and never while one of its processes lives.
"""

import contextlib
import os
import stat

CODE, WORK, TEMPORARY = "code", "work", "tmp"


class RefusedPathError(ValueError):
    """A path that leaves the work directory."""


def check_relative(path):
    """Refuse absolute paths, `..`, empty components and NUL.

    Raises:
        RefusedPathError: with the reason.
    """
    parts = path.split("/")
    if not path or "\0" in path or path.startswith("/") or ".." in parts or "" in parts:
        raise RefusedPathError(f"path {path!r}: expected a relative path inside the work directory")


class WorkDirectory:
    """The folder of one slot: `code` (the program), `work` (its directory), `tmp`."""

    def __init__(self, root, slot, jail, shared, exclusive):
        self.root = os.path.join(root, str(slot))
        self.code, self.work, self.temporary = (
            os.path.join(self.root, name) for name in (CODE, WORK, TEMPORARY)
        )
        self._jail = jail
        self._shared = [path for path in shared if os.path.isdir(path)]
        self._make()
        # Alone on its file system, a slot can also be checked for files without names.
        self._baseline = self._usage() if exclusive else None

    def _make(self):
        os.makedirs(self.root, exist_ok=True)
        # Opened for a moment so that the slot's user can make folders it owns itself: the
        # server has no capability to give files away.
        os.chmod(self.root, 0o777)
        with self._jail.acting():
            for path in (self.code, self.work, self.temporary):
                os.mkdir(path, 0o700)
        os.chmod(self.root, 0o711)

    def place(self, name, content):
        """Write the program's source; returns its path."""
        path = os.path.join(self.code, name)
        with self._jail.acting():
            _write(path, content)
        return path

    def put(self, path, content):
        """Write one file below the work directory.

        Raises:
            RefusedPathError: the path leaves it.
            OSError: no room.
        """
        check_relative(path)
        with self._jail.acting():
            target = os.path.join(self.work, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            _write(target, content)

    def fetch(self, path, limit):
        """Read one regular file below the work directory; None when there is none to read.

        Links are not followed in the last component; earlier ones lead where the slot's user may
        read, which the program could have read itself. Files above `limit` bytes are left out.
        """
        check_relative(path)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with self._jail.acting():
            try:
                fd = os.open(os.path.join(self.work, path), flags)
            except OSError:
                return None
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
                return None
            return file.read(limit)

    def fetch_all(self, paths, limit):
        """Read those of `paths` that can be; returns their names and contents."""
        found = [(path, self.fetch(path, limit)) for path in paths]
        found = [(path, content) for path, content in found if content is not None]
        return [path for path, _ in found], [content for _, content in found]

    def full(self):
        """Whether the file system has no room left for another file or page."""
        usage = os.statvfs(self.root)
        no_inodes = usage.f_files > 0 and usage.f_ffree == 0
        return no_inodes or usage.f_bavail * usage.f_frsize < 4096

    def clear(self):
        """Empty every writable place; returns whether nothing is left."""
        try:
            with self._jail.acting():
                for path in (self.code, self.work, self.temporary, *self._shared):
                    if _has_entries(path):
                        _empty(path)
        except OSError:
            return False
        return self._baseline is None or self._usage() <= self._baseline

    def _usage(self):
        """Count inodes in use, which also counts files that have no name any more."""
        usage = os.statvfs(self.root)
        return usage.f_files - usage.f_ffree


def _write(path, content):
    # A new file, never one that a session's program left there: opening a pipe would block.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "wb") as file:
        file.write(content)


def _has_entries(path):
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is not None
    except PermissionError:
        return True  # the program closed its own folder; `_empty` opens it again


def _empty(path):
    """Delete all that is ours in `path`, however deep, with two descriptors and no recursion.

    Folders found inside are moved up to the top under fresh names, so a nest of ten thousand
    costs neither stack nor path length.
    """
    if os.stat(path).st_uid == os.geteuid():
        os.chmod(path, 0o700)
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    number = 0
    try:
        folders = _unlink_files(top)
        while folders:
            name = folders.pop()
            os.chmod(name, 0o700, dir_fd=top)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
            try:
                for child in _unlink_files(inner):
                    number += 1
                    fresh = f"\x01agentrl-{number}"
                    os.chmod(child, 0o700, dir_fd=inner)
                    os.rename(child, fresh, src_dir_fd=inner, dst_dir_fd=top)
                    folders.append(fresh)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)


def _unlink_files(folder):
    folders = []
    me = os.geteuid()
    with os.scandir(folder) as entries:
        found = [
            (entry.name, entry.is_dir(follow_symlinks=False))
            for entry in entries
            # In /dev/shm there may be other slots' files as well.
            if entry.stat(follow_symlinks=False).st_uid == me
        ]
    for name, is_folder in found:
        if is_folder:
            folders.append(name)
        else:
            os.unlink(name, dir_fd=folder)
    return folders
