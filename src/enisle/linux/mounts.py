"""Mounts by descriptors (fsopen, fsmount, open_tree, move_mount, mount_setattr): no path is walked twice.

A mount is made detached, as a descriptor, and then attached to a descriptor of its target; nobody can swap the
target for a link in between. The classic mount(2) is here for file systems whose options are too long for fsconfig.
"""

from __future__ import annotations

import ctypes
import os

from enisle.linux.syscalls import PathLike, c_function, fail, syscall

AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_NO_AUTOMOUNT = 0x800
AT_FDCWD = -100

ATTR_RDONLY = 0x1
ATTR_NOSUID = 0x2
ATTR_NODEV = 0x4
ATTR_NOEXEC = 0x8
ATTR_NOATIME = 0x10
ATTR_STRICTATIME = 0x20
ATTR_ATIME_MASK = 0x70
ATTR_NODIRATIME = 0x80
ATTR_NOSYMFOLLOW = 0x200000
_ATTR_IDMAP = 0x100000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


_open_tree = syscall("open_tree", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_move_mount = syscall("move_mount", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_fsopen = syscall("fsopen", ctypes.c_char_p, ctypes.c_uint)
_fsconfig = syscall("fsconfig", ctypes.c_int, ctypes.c_uint, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int)
_fsmount = syscall("fsmount", ctypes.c_int, ctypes.c_uint, ctypes.c_uint)
_mount_setattr = syscall(
    "mount_setattr", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, ctypes.POINTER(_MountAttr), ctypes.c_size_t
)
_mount = c_function("mount", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_umount2 = c_function("umount2", ctypes.c_char_p, ctypes.c_int)


def new(filesystem: str, options: dict[str, str | None] | None = None, *, attributes: int = 0, source: str = "") -> int:
    """A detached mount of a new file system; the descriptor is its root. Options without value are flags."""
    context = create(filesystem, options, source=source)
    try:
        return mount_created(context, attributes=attributes)
    finally:
        os.close(context)


def create(filesystem: str, options: dict[str, str | None] | None = None, *, source: str = "") -> int:
    """A new file system that is not mounted yet: the descriptor is for :func:`mount_created`, once."""
    context = _fsopen(filesystem.encode(), _FSOPEN_CLOEXEC)
    if context < 0:
        raise fail(filesystem)
    try:
        if _fsconfig(context, _FSCONFIG_SET_STRING, b"source", (source or filesystem).encode(), 0) < 0:
            raise fail(filesystem)
        for key, value in (options or {}).items():
            command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
            data = None if value is None else value.encode()
            if _fsconfig(context, command, key.encode(), data, 0) < 0:
                raise fail(f"{filesystem} option {key}")
        if _fsconfig(context, _FSCONFIG_CMD_CREATE, None, None, 0) < 0:
            raise fail(filesystem)
    except OSError:
        os.close(context)
        raise
    return context


def mount_created(context: int, *, attributes: int = 0) -> int:
    """A detached mount of what was created; the descriptor is its root."""
    fd = _fsmount(context, _FSMOUNT_CLOEXEC, attributes)
    if fd < 0:
        raise fail("fsmount")
    return fd


def clone_tree(dirfd: int, path: PathLike = "", *, recursive: bool = False) -> int:
    """A detached copy (bind mount) of what is at ``path``, or of ``dirfd`` itself when ``path`` is empty."""
    name = os.fsencode(path)
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    fd = _open_tree(dirfd, name, flags | (0 if name else AT_EMPTY_PATH))
    if fd < 0:
        raise fail(os.fsdecode(name))
    return fd


def attach(mount_fd: int, target_fd: int) -> None:
    """Attach a detached mount on top of what ``target_fd`` refers to. ``mount_fd`` then refers to its root."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    if _move_mount(mount_fd, b"", target_fd, b"", flags) < 0:
        raise fail("move_mount")


def set_attributes(
    mount_fd: int, *, add: int = 0, remove: int = 0, propagation: int = 0, recursive: bool = False
) -> None:
    """Change ATTR_* flags and propagation (one MS_* kind, 0 for as is) of a mount, or of all below it too."""
    values = _MountAttr(add, remove, propagation, 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    if _mount_setattr(mount_fd, b"", flags, ctypes.byref(values), ctypes.sizeof(values)) < 0:
        raise fail("mount_setattr")


def map_ids(mount_fd: int, user_namespace: int, *, recursive: bool = False) -> None:
    """Have a detached mount show ids as that user namespace maps them (mount_setattr(2)).

    OSError (EINVAL) where the file system, or with ``recursive`` one below, cannot do so.
    """
    values = _MountAttr(_ATTR_IDMAP, 0, 0, user_namespace)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    if _mount_setattr(mount_fd, b"", flags, ctypes.byref(values), ctypes.sizeof(values)) < 0:
        raise fail("mount_setattr")


def mount(source: str, target: PathLike, filesystem: str, flags: int = 0, data: str = "") -> None:
    """The classic mount(2)."""
    if _mount(source.encode(), os.fsencode(target), filesystem.encode() or None, flags, data.encode() or None) < 0:
        raise fail(os.fsdecode(target))


def set_tree_propagation(path: PathLike, propagation: int) -> None:
    """Set one MS_* propagation kind on the mount at ``path`` and all below it."""
    if _mount(None, os.fsencode(path), None, MS_REC | propagation, None) < 0:
        raise fail(os.fsdecode(path))


def unmount(path: PathLike, flags: int = 0) -> None:
    """umount2(2)."""
    if _umount2(os.fsencode(path), flags) < 0:
        raise fail(os.fsdecode(path))
