"""Files as a client sends them: a tree over one file that holds what all of them hold, in the order it came."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath

from enisle.archive.entry import FileKind, keeps_xattr
from enisle.build.archive_tree import ArchiveTree
from enisle.build.tree import Node, Path
from enisle.buildkit.session_messages import Stat
from enisle.errors import Invalid

_FILES_LIMIT = 2_000_000
_PATH_LIMIT = 4096
_DEVICE, _PIPE, _SOCKET, _CHARACTER, _LINK, _DIRECTORY, _IRREGULAR = (1 << bit for bit in (26, 25, 24, 21, 27, 31, 19))
_TYPES = _DIRECTORY | _LINK | _PIPE | _SOCKET | _DEVICE | _CHARACTER | _IRREGULAR
_SET_UID, _SET_GID, _STICKY = 1 << 23, 1 << 22, 1 << 20
"""Bits of Go's fs.FileMode (pkg.go.dev/io/fs#FileMode)."""


@dataclass(slots=True)
class _Coming:
    """A file whose content is on its way."""

    path: Path
    size: int = 0
    parts: list[tuple[int, int, int]] = field(default_factory=list)


class ReceivedTree(ArchiveTree):
    """Files by name. Each is told with :meth:`add`, parents first; then comes what it holds."""

    def __init__(self, path: FilePath) -> None:
        super().__init__(path)
        self._count = 0
        self._coming: dict[int, _Coming] = {}
        self._links: dict[object, list[Path]] = {}

    def add(self, stat: Stat) -> int | None:
        """One more file; its number, if it has content to be asked for. Raises Invalid for a name or kind that no tree
        can have."""
        number, self._count = self._count, self._count + 1
        if self._count > _FILES_LIMIT:
            raise Invalid(f"more than {_FILES_LIMIT} files were sent")
        path = self._path(stat.path)
        kind = _kind(stat.mode)
        if kind is None:
            raise Invalid(f"{stat.path[:200]}: a file of this kind cannot be sent")
        if kind is FileKind.REGULAR and stat.link:
            self._add_link(path, stat)
            return None
        self._put(path, _node(stat, kind, number))
        if kind is not FileKind.REGULAR:
            return None
        self._parts[number] = ()
        if not stat.size:
            return None
        self._coming[number] = _Coming(path)
        return number

    def _path(self, text: str) -> Path:
        path = tuple(text.encode("utf-8", "surrogateescape").split(b"/"))
        if len(text) > _PATH_LIMIT or any(part in (b"", b".", b"..") or b"\0" in part for part in path):
            raise Invalid(f"{text[:200]!r} is no name of a file that can be sent")
        parent = self._nodes.get(path[:-1])
        if parent is None or not parent.is_directory:
            raise Invalid(f"{text[:200]}: it was sent before its directory")
        if path in self._nodes:
            raise Invalid(f"{text[:200]}: it was sent twice")
        return path

    def _add_link(self, path: Path, stat: Stat) -> None:
        target = tuple(part for part in stat.link.encode("utf-8", "surrogateescape").split(b"/") if part)
        node = self._nodes.get(target)
        if node is None or node.kind is not FileKind.REGULAR:
            raise Invalid(f"{stat.path[:200]}: hard link to a file that was not sent")
        self._put(path, node)
        self._links.setdefault(node.key, []).append(path)

    def append(self, number: int, start: int, length: int) -> None:
        """More of a file's content lies at ``start``. Raises Invalid for content that nobody has asked for."""
        coming = self._expected(number)
        parts = coming.parts
        if parts and parts[-1][1] + parts[-1][2] == start:
            offset, first, known = parts[-1]
            parts[-1] = (offset, first, known + length)
        else:
            parts.append((coming.size, start, length))
        coming.size += length

    def _expected(self, number: int) -> _Coming:
        if number not in self._coming:
            raise Invalid(f"content of file {number} was sent, which was not asked for")
        return self._coming[number]

    def finish(self, number: int) -> None:
        """All of a file is there; it is as long as what was sent."""
        coming = self._expected(number)
        del self._coming[number]
        self._parts[number] = tuple(coming.parts)
        node = self._nodes[coming.path]
        if node.size != coming.size:
            for path in (coming.path, *self._links.get(node.key, ())):
                self._nodes[path] = replace(node, size=coming.size)

    @property
    def missing(self) -> int:
        """How many files have not been sent whole."""
        return len(self._coming)


def _node(stat: Stat, kind: FileKind, number: int) -> Node:
    return Node(
        kind=kind,
        mode=_permissions(stat.mode),
        uid=0,  # as BuildKit has it: who owns the client's files is not the image's business
        gid=0,
        size=stat.size if kind is FileKind.REGULAR else 0,
        mtime_ns=stat.modified,
        target=stat.link.encode("utf-8", "surrogateescape") if kind is FileKind.SYMBOLIC_LINK else b"",
        device=(stat.major, stat.minor) if kind in (FileKind.CHARACTER, FileKind.BLOCK) else (0, 0),
        key=number,
        xattrs={
            name: value
            for text, value in stat.xattrs.items()
            if keeps_xattr(name := text.encode("utf-8", "surrogateescape"))
        },
    )


def _kind(mode: int) -> FileKind | None:
    kinds = {
        0: FileKind.REGULAR,
        _DIRECTORY: FileKind.DIRECTORY,
        _LINK: FileKind.SYMBOLIC_LINK,
        _PIPE: FileKind.FIFO,
        _DEVICE: FileKind.BLOCK,
        _DEVICE | _CHARACTER: FileKind.CHARACTER,
    }
    return kinds.get(mode & _TYPES)


def _permissions(mode: int) -> int:
    special = ((_SET_UID, 0o4000), (_SET_GID, 0o2000), (_STICKY, 0o1000))
    return mode & 0o777 | sum(bit for flag, bit in special if mode & flag)


def go_mode(node: Node) -> int:
    """A file's kind and permissions as Go's fs.FileMode."""
    kinds = {
        FileKind.DIRECTORY: _DIRECTORY,
        FileKind.SYMBOLIC_LINK: _LINK,
        FileKind.FIFO: _PIPE,
        FileKind.BLOCK: _DEVICE,
        FileKind.CHARACTER: _DEVICE | _CHARACTER,
    }
    special = ((_SET_UID, 0o4000), (_SET_GID, 0o2000), (_STICKY, 0o1000))
    return kinds.get(node.kind, 0) | node.mode & 0o777 | sum(flag for flag, bit in special if node.mode & bit)
