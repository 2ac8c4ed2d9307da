"""The root file system of a container as a descriptor: everything in it is found without ever leaving it."""

from __future__ import annotations

import errno
import os
import stat

from enisle.linux.syscalls import (
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    openat2,
)

_MAX_LINKS = 40
_INSIDE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS


class Root:
    """A root directory. Paths are absolute in it; links, "..", and races with renames stay inside (openat2(2))."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def open(self, path: str, flags: int = os.O_PATH, *, links: bool = True) -> int:
        """Open what is there. ``links=False``: ELOOP when any part of the path is a symbolic link."""
        return openat2(self.fd, path, flags, resolve=_INSIDE | (0 if links else RESOLVE_NO_SYMLINKS))

    def target(self, path: str, *, directory: bool, links: bool = True) -> int:
        """What is at ``path`` (O_PATH), made with its parents where it is missing, as directory or empty file."""
        try:
            return self.open(path, links=links)
        except FileNotFoundError:
            pass
        try:
            return self._make_last(path, directory=directory)
        except OSError:
            return self._make(path, directory=directory, links=links)

    def _make_last(self, path: str, *, directory: bool) -> int:
        """Where only the last part is missing, and none of the others is a link. OSError otherwise."""
        parent, _, name = path.rpartition("/")
        if name in ("", ".", ".."):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        fd = self.open(parent or "/", os.O_PATH | os.O_DIRECTORY, links=False)
        try:
            _create(fd, name, directory=directory)
        finally:
            os.close(fd)
        return self.open(path, links=False)

    def _make(self, path: str, *, directory: bool, links: bool) -> int:
        """Walk part by part: ``done`` holds no links, and every step starts again from the root."""
        pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        done: list[str] = []
        followed = 0
        while pending:
            part = pending.pop()
            if part == "..":
                del done[-1:]
                continue
            is_directory = directory or bool(pending)
            fd = self._step(done, part, directory=is_directory)
            try:
                mode = os.fstat(fd).st_mode
                if not stat.S_ISLNK(mode):
                    done.append(part)
                    continue
                followed += 1
                if followed > _MAX_LINKS or not links:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                link = os.readlink("", dir_fd=fd)
            finally:
                os.close(fd)
            if link.startswith("/"):
                done.clear()
            pending += [part for part in reversed(link.split("/")) if part not in ("", ".")]
        return self.open("/" + "/".join(done), links=False)

    def _step(self, done: list[str], part: str, *, directory: bool) -> int:
        """What is called ``part`` in a directory that is there, made if it is not; a link itself, not its target."""
        parent = self.open("/" + "/".join(done), os.O_PATH | os.O_DIRECTORY, links=False)
        try:
            for _attempt in range(2):
                try:
                    return os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
                except FileNotFoundError:
                    _create(parent, part, directory=directory)
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), part)
        finally:
            os.close(parent)

    def read(self, path: str, limit_bytes: int) -> bytes:
        """The content of a regular file, at most that much; b"" when there is none. Never waits on a FIFO or device."""
        try:
            fd = self.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            return b""
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return b""
            blocks, left = [], limit_bytes
            while left and (block := os.read(fd, min(left, 1 << 18))):
                blocks.append(block)
                left -= len(block)
            return b"".join(blocks)
        finally:
            os.close(fd)


def _create(parent: int, name: str, *, directory: bool) -> None:
    try:
        if directory:
            os.mkdir(name, 0o755, dir_fd=parent)
        else:
            flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_WRONLY
            os.close(os.open(name, flags, 0o644, dir_fd=parent))
    except FileExistsError:
        pass
