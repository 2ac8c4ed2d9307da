"""Copying all of a directory into an empty one that nobody else writes to, while somebody may be writing the first.

Each file is as it was while it was read; blocks are shared where the file system can do that (FICLONE), holes stay.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from enisle.archive.beneath import LITERALLY, directory, look
from enisle.archive.pack import VANISHED, read_xattrs
from enisle.linux.syscalls import RESOLVE_NO_XDEV

_FICLONE = 0x40049409
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HERE = LITERALLY | RESOLVE_NO_XDEV


def copy_tree(source: int, target: int) -> None:
    """Owners, modes, times, attributes and hard links are kept; sockets are left out. OSError: a full disk."""
    _TreeCopy(source, target).run()


class _TreeCopy:
    def __init__(self, source: int, target: int) -> None:
        self._source = source
        self._target = target
        self._linked: dict[tuple[int, int], bytes] = {}
        self._waiting: list[bytes] = [b""]

    def run(self) -> None:
        done: list[bytes] = []
        while self._waiting:
            path = self._waiting.pop()
            try:
                with directory(self._source, path, resolve=_HERE) as source:
                    self._directory(source, path)
            except OSError as error:
                if error.errno not in VANISHED:
                    raise
            done.append(path)
        for path in reversed(done):  # last of all: each file made in a directory moves its time
            self._directory_attributes(path)

    def _directory(self, source: int, path: bytes) -> None:
        with directory(self._target, path, resolve=_HERE) as target:
            for text in sorted(os.listdir(source)):
                name = os.fsencode(text)
                status = look(source, name)
                if status is None:
                    continue
                try:
                    self._one(source, target, name, status, path + b"/" + name if path else name)
                except OSError as error:
                    if error.errno not in VANISHED:
                        raise

    def _one(self, source: int, target: int, name: bytes, status: os.stat_result, path: bytes) -> None:
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            self._waiting.append(path)
            return
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and key in self._linked:
            os.link(self._linked[key], name, src_dir_fd=self._target, dst_dir_fd=target, follow_symlinks=False)
            return
        if stat.S_ISREG(status.st_mode):
            _file(source, target, name)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            _owner_and_time(target, name, status)
        elif stat.S_ISSOCK(status.st_mode):
            return
        else:
            mask = os.umask(0)
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
            os.umask(mask)
            _owner_and_time(target, name, status)
        if status.st_nlink > 1:
            self._linked[key] = path

    def _directory_attributes(self, path: bytes) -> None:
        try:
            with (
                directory(self._source, path, resolve=_HERE) as source,
                directory(self._target, path, resolve=_HERE) as target,
            ):
                _attributes(source, target)
        except OSError as error:
            if error.errno not in VANISHED:
                raise


def _owner_and_time(parent: int, name: bytes, status: os.stat_result) -> None:
    os.chown(name, status.st_uid, status.st_gid, dir_fd=parent, follow_symlinks=False)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=parent, follow_symlinks=False)


def _file(source: int, target: int, name: bytes) -> None:
    original = os.open(name, _READ, dir_fd=source)
    try:
        if not stat.S_ISREG(os.fstat(original).st_mode):
            return  # something else has taken its place
        copy = os.open(name, _NEW, 0o600, dir_fd=target)
        try:
            _content(original, copy)
            _attributes(original, copy)
        finally:
            os.close(copy)
    finally:
        os.close(original)


def _content(source: int, target: int) -> None:
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return
    except OSError:
        pass  # not on this file system
    size, at = os.fstat(source).st_size, 0
    os.ftruncate(target, size)
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
            end = min(os.lseek(source, at, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data any more
                return
            raise
        os.lseek(target, at, os.SEEK_SET)
        while at < end:
            moved = os.sendfile(target, source, at, min(end - at, 1 << 24))
            if not moved:
                return  # it was cut meanwhile
            at += moved


def _attributes(source: int, target: int) -> None:
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name, value in read_xattrs(source, overlay=True).items():
        try:
            os.setxattr(target, name, value)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):  # the file system does not have that kind
                raise
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
