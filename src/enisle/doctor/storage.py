"""Disk space, and the file system under the data root."""

from __future__ import annotations

import os
from pathlib import Path

from enisle.contracts import HostCapability

_LEAST_BYTES = 2 << 30
_UNFIT = frozenset({"overlay", "nfs", "nfs4", "vfat", "exfat", "fuseblk"})  # no upper directories for overlayfs there


def probe(data_root: Path) -> list[HostCapability]:
    """Where images and instances are kept (or would be)."""
    existing = next(path for path in (data_root, *data_root.parents) if path.exists())
    numbers = os.statvfs(existing)
    mounted = file_system(str(existing.resolve()), Path("/proc/self/mountinfo").read_text(errors="replace"))
    return [space(data_root, numbers.f_bavail * numbers.f_frsize), fit(data_root, mounted)]


def space(data_root: Path, free_bytes: int) -> HostCapability:
    """Whether there is room for images."""
    ok = free_bytes >= _LEAST_BYTES
    return HostCapability(
        name="disk space",
        ok=ok,
        detail=f"{free_bytes / (1 << 30):.1f} GiB free for {data_root}",
        remedy="" if ok else "Make room (enisle system prune), or move the data root (enisled --data-root).",
    )


def fit(data_root: Path, kind: str) -> HostCapability:
    """Whether overlayfs takes directories of this file system as upper ones."""
    ok = kind not in _UNFIT
    return HostCapability(
        name="data root",
        ok=ok,
        detail=f"{data_root} on {kind or 'an unknown file system'}",
        remedy="" if ok else "Put it on ext4, xfs, btrfs or tmpfs: overlayfs cannot write onto this one.",
        wall="" if ok else "container",
    )


def file_system(path: str, mountinfo: str) -> str:
    """The type of the file system that holds a path, from /proc/PID/mountinfo (proc(5)); the last mount wins."""
    best, found = "", ""
    for line in mountinfo.splitlines():
        fields, _, tail = line.partition(" - ")
        point = fields.split(" ")[4].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, found = point, tail.split(" ")[0]
    return found
