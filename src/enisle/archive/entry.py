"""What a tar archive says of one file, and the ways in which it can be wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

BLOCK = 512
NAME_LIMIT_BYTES = 4096  # PATH_MAX; no longer name can be created by one system call
ID_LIMIT = 2**32 - 2  # 2**32 - 1 means "leave alone" to chown(2)


_UNCLEAN = frozenset({b"", b".", b".."})


class ArchiveError(Exception):
    """The archive is malformed, hostile or over a limit; the text names the entry and the cause."""


class TooLargeError(ArchiveError):
    """The archive's files are more than there is room for."""


class FileKind(Enum):
    """The type flag of a tar header (pax(1))."""

    REGULAR = b"0"
    HARD_LINK = b"1"
    SYMBOLIC_LINK = b"2"
    CHARACTER = b"3"
    BLOCK = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"


@dataclass(slots=True, kw_only=True)
class Entry:
    """One member. ``size`` is the file's length, ``stored`` the bytes that follow in the archive (less if sparse).

    ``sparse`` lists (offset, length) of the parts that are stored, in order; None: the whole file is.
    """

    name: bytes
    kind: FileKind = FileKind.REGULAR
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    stored: int = 0
    mtime_ns: int = 0
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    sparse: list[tuple[int, int]] | None = None

    def __post_init__(self) -> None:
        if self.size and not self.stored and self.sparse is None:
            self.stored = self.size


def shown(name: bytes) -> str:
    """A name fit for a message: printable, not too long."""
    text = name.decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= 200 else text[:197] + "..."


def components(name: bytes) -> list[bytes]:
    """The name split at slashes and cleaned as path.Clean does; [] is the root itself.

    Raises ArchiveError for a name that climbs above the root, holds NUL or is too long to exist.
    """
    if len(name) > NAME_LIMIT_BYTES:
        raise ArchiveError(f"{shown(name)}: the name is longer than {NAME_LIMIT_BYTES} bytes")
    if b"\0" in name:
        raise ArchiveError(f"{shown(name)}: the name holds a NUL byte")
    split = name.split(b"/")
    if not _UNCLEAN.intersection(split):
        return split
    parts: list[bytes] = []
    for part in split:
        if part == b"..":
            if not parts:
                raise ArchiveError(f"{shown(name)}: the name leads out of the archive")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return parts


def keeps_xattr(name: bytes, *, overlay: bool = False) -> bool:
    """Whether an extended attribute travels in archives.

    trusted.* and user.overlay.* steer overlayfs itself, so an archive could forge opaque or redirected directories;
    ``overlay`` lets them through, for volumes, which we never use as part of an overlay.
    security.* other than file capabilities belongs to the host's security modules.
    """
    if overlay and name.startswith((b"trusted.overlay.", b"user.overlay.")):
        return True
    if name.startswith(b"user."):
        return not name.startswith(b"user.overlay.")
    return name in (b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default")
