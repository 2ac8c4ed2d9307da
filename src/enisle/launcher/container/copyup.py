"""Filling a new volume with what the image has at its place (docker run -v name:/path)."""

from __future__ import annotations

import os
import stat


def copy_up(source: int, target: int) -> None:
    """Copy the directory ``source`` into the directory ``target`` if that is empty. Follows no links."""
    if os.listdir(target):
        return
    _copy_attributes(source, target)
    linked: dict[tuple[int, int], int] = {}
    try:
        _copy_tree(source, target, linked)
    finally:
        for fd in linked.values():
            os.close(fd)


def _copy_tree(source: int, target: int, linked: dict[tuple[int, int], int]) -> None:
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        key = (status.st_dev, status.st_ino)
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner_source, inner_target = os.open(name, flags, dir_fd=source), os.open(name, flags, dir_fd=target)
            try:
                _copy_tree(inner_source, inner_target, linked)
                _copy_attributes(inner_source, inner_target)
            finally:
                os.close(inner_source)
                os.close(inner_target)
        elif key in linked:
            os.link(f"/proc/self/fd/{linked[key]}", name, dst_dir_fd=target, follow_symlinks=True)
        elif stat.S_ISREG(status.st_mode):
            copy = _copy_file(source, target, name)
            if status.st_nlink > 1 and len(linked) < 4096:
                linked[key] = copy
            else:
                os.close(copy)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        elif not stat.S_ISSOCK(status.st_mode):
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
            os.chmod(f"/proc/self/fd/{target}/{name}", stat.S_IMODE(status.st_mode))


def _copy_file(source: int, target: int, name: str) -> int:
    original = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        copy = os.open(name, flags, 0o600, dir_fd=target)
        while os.sendfile(copy, original, None, 1 << 24):
            pass
        _copy_attributes(original, copy)
        return copy
    finally:
        os.close(original)


def _copy_attributes(source: int, target: int) -> None:
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        if not name.startswith("trusted."):
            try:
                os.setxattr(target, name, os.getxattr(source, name))
            except OSError:
                pass  # the volume's file system does not have that kind
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
