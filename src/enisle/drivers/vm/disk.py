"""The writable disk of a VM: a sparse file with an empty ext4, copied from a template that is made once per size."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from enisle.errors import Exhausted, Internal, Invalid, NotSupported

DEFAULT_DISK_BYTES = 20 << 30
_MINIMUM_DISK_BYTES = 64 << 20
_MAXIMUM_DISK_BYTES = 16 << 40
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)i?b?", re.IGNORECASE | re.ASCII)
_UNITS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_FICLONE = 0x40049409
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

# A small journal, tables together at the front and zeroed only when used: a template of 20 GiB holds 200 KiB, and a
# guest that writes little dirties little of the host's disk.
_MKFS = [
    "mkfs.ext4",
    "-q",
    "-F",
    "-m",
    "0",
    "-O",
    "^resize_inode,sparse_super2",
    "-E",
    "lazy_itable_init=1,lazy_journal_init=1,nodiscard,packed_meta_blocks=1",
    "-J",
]


def disk_bytes(options: Mapping[str, str]) -> int:
    """The size asked for by ``--storage-opt size=``, bytes; the default without. Invalid for what is no size."""
    for name in options:
        if name != "size":
            raise Invalid(f"--storage-opt {name[:80]}: a virtual machine's disk knows only size.")
    text = options.get("size", "")
    if not text:
        return DEFAULT_DISK_BYTES
    found = _SIZE.fullmatch(text.strip())
    fits = found is not None and len(found[1]) < 30  # more digits can make a float infinite
    size = int(float(found[1]) * (1 << _UNITS[found[2].lower()])) if found and fits else 0
    size &= ~0xFFFFF
    if not _MINIMUM_DISK_BYTES <= size <= _MAXIMUM_DISK_BYTES:
        raise Invalid(f"--storage-opt size={text[:80]}: the size of a disk is 64m to 16t.")
    return size


def make_disk(path: Path, templates: Path, size: int) -> None:
    """A fresh disk at ``path``, unless there is one. Exhausted when the host's disk is full."""
    if path.exists():
        return
    template = _template(templates, size)
    handle, name = tempfile.mkstemp(prefix=".disk-", dir=path.parent)
    try:
        with open(template, "rb") as source, open(handle, "wb") as target:
            _clone(source.fileno(), target.fileno(), size)
        os.rename(name, path)
    except OSError as error:
        os.unlink(name)
        kind = Exhausted if error.errno in (28, 122) else Internal  # ENOSPC, EDQUOT
        raise kind(f"The disk {path} cannot be made: {error.strerror}.") from error


def _template(directory: Path, size: int) -> Path:
    path = directory / f"disk-{size >> 20}M.ext4"
    if path.exists():
        return path
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix="making-disk-", dir=directory)
    try:
        os.ftruncate(handle, size)
        os.close(handle)
        journal = 16 if size >= 1 << 30 else 4
        done = subprocess.run(
            [*_MKFS, f"size={journal}", "--", name], env=_ENVIRONMENT, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Internal(f"mkfs.ext4 failed: {done.stderr.strip()[:300]}")
        os.rename(name, path)
    except FileNotFoundError as error:
        raise NotSupported(
            "The disk of a virtual machine needs mkfs.ext4.", remedy="Install the package e2fsprogs."
        ) from error
    finally:
        Path(name).unlink(missing_ok=True)
    return path


def _clone(source: int, target: int, size: int) -> None:
    """Share the blocks where the file system can, else copy those that hold data."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return
    except OSError:
        os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError:  # ENXIO: no data any more
            return
        end = os.lseek(source, at, os.SEEK_HOLE)
        os.lseek(target, at, os.SEEK_SET)
        while at < end:
            at += os.sendfile(target, source, at, end - at)


def used_bytes(path: Path) -> int:
    """Bytes of the host's disk that a sparse file takes; 0 when it is not there."""
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0
