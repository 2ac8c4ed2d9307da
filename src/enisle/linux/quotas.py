"""Project quotas: a limit on what a directory tree takes (xfs and ext4; quotactl(2), ioctl_xfs_fsgetxattr(2))."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

from enisle.linux.syscalls import fail, syscall

_FSGETXATTR = 0x801C581F
_FSSETXATTR = 0x401C5820
_XATTR = struct.Struct("=5I8x")  # xflags, extsize, nextents, projid, cowextsize
_PROJECT_INHERIT = 0x200
_PROJECT = 2
_GET_QUOTA, _SET_QUOTA = 0x800007, 0x800008
_BLOCK_LIMITS = 1
_BLOCK = 1024
_FIRST_ID = 0x45000000  # leaves the small numbers to people
_IDS = 1 << 20
_ATTEMPTS = 1000


class _Dqblk(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("bhardlimit", "bsoftlimit", "curspace", "ihardlimit", "isoftlimit")),
        *((name, ctypes.c_uint64) for name in ("curinodes", "btime", "itime")),
        ("valid", ctypes.c_uint32),
    )


_quotactl_fd = syscall("quotactl_fd", ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.POINTER(_Dqblk))


def supported(directory: str) -> bool:
    """Whether the file system of a directory enforces project quotas."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _get(fd, _FIRST_ID) is not None
    finally:
        os.close(fd)


def limit(fd: int, size_bytes: int) -> None:
    """Limit what is below a directory. An empty one becomes a project first; later the limit changes.

    OSError: EDQUOT when what is there is more, ESRCH where project quotas are not (or no longer) enforced.
    """
    project = _project(fd) or _claim(fd)
    used = _get(fd, project)
    if used is not None and used.curspace > size_bytes:
        raise OSError(errno.EDQUOT, f"{used.curspace} bytes are in use")
    blocks = -(-size_bytes // _BLOCK)
    values = _Dqblk(bhardlimit=blocks, bsoftlimit=blocks, valid=_BLOCK_LIMITS)
    _call(fd, _SET_QUOTA, project, values)


def unlimit(fd: int) -> None:
    """Give a directory's project back before the directory goes. OSError."""
    project = _project(fd)
    if project:
        _call(fd, _SET_QUOTA, project, _Dqblk(valid=_BLOCK_LIMITS))


def _get(fd: int, project: int) -> _Dqblk | None:
    """What a project takes and may take; None where there are no project quotas."""
    values = _Dqblk()
    try:
        _call(fd, _GET_QUOTA, project, values)
    except OSError as error:
        return values if error.errno == errno.ENOENT else None
    return values


def _claim(fd: int) -> int:
    """Make the directory a project of its own. Of two who choose one number at a time, both choose another."""
    flags, extent, count, _project_id, cow = _XATTR.unpack(_attributes(fd))
    for _attempt in range(_ATTEMPTS):
        project = _FIRST_ID + int.from_bytes(os.urandom(4), "little") % _IDS
        found = _get(fd, project)
        if found is None:
            raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
        if found.bhardlimit or found.curspace or found.curinodes:
            continue
        fcntl.ioctl(fd, _FSSETXATTR, _XATTR.pack(flags | _PROJECT_INHERIT, extent, count, project, cow))
        found = _get(fd, project)
        if found is not None and found.curinodes == 1:
            return project
    raise OSError(errno.EBUSY, "no project id is free")


def _project(fd: int) -> int:
    """The directory's project; 0 for none, or one that somebody else has put the whole data root into."""
    try:
        flags, _extent, _count, project, _cow = _XATTR.unpack(_attributes(fd))
    except OSError:
        return 0
    ours = flags & _PROJECT_INHERIT and _FIRST_ID <= project < _FIRST_ID + _IDS
    return int(project) if ours else 0


def _attributes(fd: int) -> bytes:
    buffer = bytearray(_XATTR.size)
    fcntl.ioctl(fd, _FSGETXATTR, buffer)
    return bytes(buffer)


def _call(fd: int, command: int, project: int, values: _Dqblk) -> None:
    if _quotactl_fd(fd, command << 8 | _PROJECT, project, ctypes.byref(values)) < 0:
        raise fail("project quota")
