"""The sources of mounts, taken as detached mounts before anything of the host is hidden: no path is walked twice.

A source may lie in the mount namespace of another process (``/proc/PID/root/path``): a volume that its keeper has
mounted, or the /dev/shm of another container. The kernel clones mounts only from within their own namespace.
"""

from __future__ import annotations

import os
import re

from enisle.linux import mounts
from enisle.linux.namespaces import CLONE_NEWNS, setns
from enisle.linux.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2

_OTHER_ROOT = re.compile(r"/proc/(\d{1,10})/root(/.+)", re.ASCII)
_INSIDE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS


def other_root(source: str) -> tuple[str, str]:
    """The mount namespace that a source lies in, "" for ours, and its path there."""
    match = _OTHER_ROOT.fullmatch(source)
    return (f"/proc/{match[1]}/ns/mnt", match[2]) if match is not None else ("", source)


def take(source: str, *, subpath: str = "", recursive: bool = False) -> int:
    """A detached copy of what is mounted at ``source``, or at ``subpath`` in it, which cannot lead out of it.

    The caller must have one thread. OSError.
    """
    namespace, path = other_root(source)
    if not namespace:
        return _clone(source, subpath, recursive=recursive)
    ours = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)  # our own pid means another process in there
    theirs = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(theirs, CLONE_NEWNS)
        try:
            return _clone(path, subpath, recursive=recursive)
        finally:
            setns(ours, CLONE_NEWNS)
    finally:
        os.close(theirs)
        os.close(ours)


def _clone(path: str, subpath: str, *, recursive: bool) -> int:
    if not subpath:
        return mounts.clone_tree(mounts.AT_FDCWD, path, recursive=recursive)
    base = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return _clone_inside(base, subpath, recursive=recursive)
    finally:
        os.close(base)


def _clone_inside(base: int, subpath: str, *, recursive: bool) -> int:
    inner = openat2(base, subpath, os.O_PATH, resolve=_INSIDE)
    try:
        return mounts.clone_tree(inner, recursive=recursive)
    finally:
        os.close(inner)


def take_image(layers: list[str], place: str, *, subpath: str = "") -> int:
    """A detached read-only mount of an image's layers, topmost first. ``place``: a directory to mount it at meanwhile.

    The caller is in a mount namespace of its own that is cut off the host's. OSError.
    """
    if len(layers) == 1:  # overlayfs wants two of them
        return _clone(layers[0], subpath, recursive=False)
    opened: list[int] = []
    try:
        for path in layers:
            opened.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        # By descriptor, because mount(2) takes 4096 bytes of options at most.
        lower = ":".join(f"/proc/self/fd/{fd}" for fd in opened)
        mounts.mount("overlay", place, "overlay", mounts.MS_RDONLY, f"lowerdir={lower}")
    finally:
        for fd in opened:
            os.close(fd)
    try:
        return _clone(place, subpath, recursive=False)
    finally:
        mounts.unmount(place, mounts.MNT_DETACH)
