"""The two directories of an engine, each held by one enisled at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from enisle.errors import Unavailable

LOCK_NAME = "enisled.pid"
_MAGIC_TMPFS = frozenset({"tmpfs", "ramfs"})


@contextlib.contextmanager
def held(root: Path, what: str, mode: int) -> Iterator[None]:
    """Make the directory and hold it. Unavailable when it cannot be used, or another enisled holds it."""
    try:
        root.mkdir(mode=mode, parents=True, exist_ok=True)
        os.chmod(root, mode)
        fd = os.open(root / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(
            f"{what} {root} cannot be used: {error.strerror}", remedy="Mount or repair it, or choose another."
        ) from error
    try:
        _lock(fd, root, what)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, root: Path, what: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise Unavailable(
            f"{what} {root} is in use by another enisled (pid {holder})", remedy="Stop it, or choose another directory."
        ) from None
