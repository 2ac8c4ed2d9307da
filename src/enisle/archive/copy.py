"""What ``docker cp`` asks of a root: look at a path, and unpack an archive at one (for the way out see pack)."""

from __future__ import annotations

import errno
import os
import stat as modes
import time

from enisle.archive.apply import Applied, Limits, Policy, apply_with
from enisle.archive.beneath import directory, evaluate
from enisle.archive.pack import find, go_mode
from enisle.archive.reader import ByteSource


def stat(root: int, path: str) -> dict[str, str | int]:
    """{"name", "size", "mode" (Go's os.FileMode), "mtime" (RFC 3339), "linkTarget"} of a path inside the root.

    FileNotFoundError, or NotADirectoryError for a file named with a slash at its end.
    """
    raw = os.fsencode(path)
    _, _, status = find(root, raw)
    target = evaluate(root, raw) if modes.S_ISLNK(status.st_mode) else b""
    return {
        "name": os.fsdecode(raw.rstrip(b"/").rpartition(b"/")[2] or b"/"),
        "size": status.st_size,
        "mode": go_mode(status.st_mode),
        "mtime": format_time(status.st_mtime_ns),
        "linkTarget": os.fsdecode(target),
    }


def format_time(time_ns: int) -> str:
    """Nanoseconds since the epoch in RFC 3339, in UTC, trailing zeros dropped as Go does."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"


def put(
    root: int,
    path: str,
    stream: ByteSource,
    *,
    keep_kind: bool = False,
    owner: tuple[int, int] | None = None,
    limits: Limits | None = None,
) -> Applied:
    """Unpack an uncompressed tar into the directory at ``path``; links on the way are followed inside the root.

    ``keep_kind``: ArchiveError rather than replace a directory by a file or a file by a directory.
    ``owner``: (uid, gid) for all that is made, instead of the archive's. FileNotFoundError or NotADirectoryError
    when ``path`` is no directory, then nothing was read. See :func:`enisle.archive.apply.apply` for the rest.
    """
    within = evaluate(root, os.fsencode(path))
    with directory(root, within) as fd:
        if not modes.S_ISDIR(os.fstat(fd).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "extraction point is not a directory", path)
    policy = Policy(
        limits=limits or Limits(),
        owner=owner,
        keep_kind=keep_kind,
        within=tuple(part for part in within.split(b"/") if part),
        root_attributes=False,
    )
    return apply_with(root, stream, policy)
