"""Paths below a directory descriptor: nothing here can reach outside of it, whatever links are met on the way.

Every look-up is one openat2(2) from the root's descriptor, or a single name below a directory that was found so.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from enisle.archive.entry import ArchiveError, shown
from enisle.linux.syscalls import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)

IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
LITERALLY = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS
_DEEP = 64  # levels of a tree whose descriptors are held while it is removed
_LINKS_LIMIT = 40  # as in path_resolution(7)


def open_directory(root: int, path: bytes, *, resolve: int = IN_ROOT) -> int:
    """A descriptor of the directory at ``path`` inside the root; "" is the root. OSError as open(2)."""
    return openat2(root, path.lstrip(b"/") or b".", os.O_RDONLY | os.O_DIRECTORY, resolve=resolve)


@contextmanager
def directory(root: int, path: bytes, *, resolve: int = IN_ROOT) -> Iterator[int]:
    """As :func:`open_directory`, closed at the end."""
    fd = open_directory(root, path, resolve=resolve)
    try:
        yield fd
    finally:
        os.close(fd)


def look(parent: int, name: bytes) -> os.stat_result | None:
    """The attributes of a name in a directory, links not followed; None: there is no such name."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def remove(parent: int, name: bytes) -> None:
    """Remove a file or a tree of any depth; a name that is not there is fine.

    Never enters what is mounted below: EXDEV then, with all that was found before it gone.
    """
    try:
        os.unlink(name, dir_fd=parent)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):  # EPERM is POSIX's answer for a directory
        pass
    top = _open_own(parent, name)
    try:
        _empty(top, top, 0)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def remove_tree(path: str | os.PathLike[str]) -> None:
    """Remove what is at a path of ours, whose last component may be of others' making."""
    above, name = os.path.split(os.fsencode(path))
    parent = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove(parent, name)
    finally:
        os.close(parent)


def _open_own(parent: int, name: bytes) -> int:
    """A directory to be emptied, unless it belongs to another mount: that could be the host's /dev or a volume."""
    return openat2(parent, name, os.O_RDONLY | os.O_DIRECTORY, resolve=LITERALLY | RESOLVE_NO_XDEV)


def _empty(top: int, fd: int, depth: int) -> None:
    """Remove all in ``fd``. What lies too deep is moved up to ``top`` first: stack and descriptors are finite."""
    while names := os.listdir(fd):
        for text in names:
            name = os.fsencode(text)
            status = look(fd, name)
            if status is None:
                continue
            if not stat.S_ISDIR(status.st_mode):
                os.unlink(name, dir_fd=fd)
            elif depth >= _DEEP:
                os.rename(name, b".enisle-deep-%d" % status.st_ino, src_dir_fd=fd, dst_dir_fd=top)
            else:
                child = _open_own(fd, name)
                try:
                    _empty(top, child, depth + 1)
                finally:
                    os.close(child)
                os.rmdir(name, dir_fd=fd)


def evaluate(root: int, path: bytes) -> bytes:
    """Where ``path`` leads inside the root, all links followed; components that do not exist stay as they are."""
    waiting = [part for part in reversed(path.split(b"/")) if part]
    found: list[bytes] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part == b".":
            continue
        if part == b"..":
            found = found[:-1]
            continue
        target = _link_target(root, found, part)
        if target is None:
            found.append(part)
            continue
        links += 1
        if links > _LINKS_LIMIT:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith(b"/"):
            found = []
        waiting += [piece for piece in reversed(target.split(b"/")) if piece]
    return b"/" + b"/".join(found)


def _link_target(root: int, above: Sequence[bytes], name: bytes) -> bytes | None:
    try:
        with directory(root, b"/".join(above), resolve=LITERALLY) as parent:
            return os.readlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            return None
        raise


class Parents:
    """Directories that entries are made in: found or made once, then kept open for the next entry."""

    def __init__(self, root: int, *, keep: int = 48) -> None:
        self._root = root
        self._keep = keep
        self._open: OrderedDict[tuple[bytes, ...], int] = OrderedDict()
        self.made: list[bytes] = []  # directories no entry had named

    def close(self) -> None:
        """Close every descriptor."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    forget = close  # after a directory or a link was removed, known paths may lead elsewhere

    def get(self, parts: Sequence[bytes], *, make: bool = True) -> int:
        """A descriptor, owned by this object and valid until the next call, of the directory at ``parts``."""
        key = tuple(parts)
        fd = self._open.get(key)
        if fd is not None:
            self._open.move_to_end(key)
            return fd
        fd = self._find(key, make)
        self._open[key] = fd
        if len(self._open) > self._keep:
            os.close(self._open.popitem(last=False)[1])
        return fd

    def _find(self, key: tuple[bytes, ...], make: bool) -> int:
        path = b"/".join(key)
        try:
            return open_directory(self._root, path)
        except FileNotFoundError:
            if not make or not key:
                raise
        missing = 1
        while True:
            try:
                fd = open_directory(self._root, b"/".join(key[:-missing]))
                break
            except FileNotFoundError:
                if missing == len(key):
                    raise
                missing += 1
        os.close(fd)
        for count in range(len(key) - missing, len(key)):
            self._make(key[:count], key[count])
        return open_directory(self._root, path)

    def _make(self, above: tuple[bytes, ...], name: bytes) -> None:
        with directory(self._root, b"/".join(above)) as parent:
            try:
                os.mkdir(name, 0o755, dir_fd=parent)
            except FileExistsError:
                raise ArchiveError(f"{shown(b'/'.join((*above, name)))}: a link in the way leads nowhere") from None
        self.made.append(b"/".join((*above, name)))
