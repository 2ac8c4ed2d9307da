"""A file tree that is looked at without being mounted or unpacked: a build context, or the layers of an image.

Links are followed here, inside the tree: no path given to the kernel ever holds one, so none can lead out of it.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

from enisle.archive.entry import FileKind
from enisle.errors import Invalid

Path = tuple[bytes, ...]
LINKS_LIMIT = 40  # as in path_resolution(7)


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One file. ``key`` is the same for names that are one file (hard links). ``layer``: where it lies, in its tree."""

    kind: FileKind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    key: object = None
    layer: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        return self.kind is FileKind.DIRECTORY


class Tree(ABC):
    """Files by path. The root is (); no component is empty, "." or ".."."""

    def __init__(self) -> None:
        self._digests: dict[object, str] = {}

    @abstractmethod
    def look(self, path: Path) -> Node | None:
        """What is at exactly this path, no link followed; None: nothing."""

    @abstractmethod
    def names(self, path: Path) -> list[bytes]:
        """What a directory holds, sorted; [] for anything else."""

    @abstractmethod
    def content(self, path: Path, node: Node) -> Iterator[bytes]:
        """The bytes of a regular file."""

    def xattrs(self, path: Path, node: Node) -> dict[bytes, bytes]:
        """The extended attributes that travel in archives."""
        return node.xattrs

    def evaluate(self, path: Path, *, last: bool = True) -> Path:
        """Where the path leads, links followed inside the tree; what does not exist stays as it is.

        ``last``: follow a link at the very end too. Raises Invalid for a loop.
        """
        waiting = list(reversed(path))
        found: Path = ()
        links = 0
        while waiting:
            part = waiting.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                found = found[:-1]
                continue
            node = self.look((*found, part))
            if node is None or node.kind is not FileKind.SYMBOLIC_LINK or (not waiting and not last):
                found = (*found, part)
                continue
            links += 1
            if links > LINKS_LIMIT:
                raise Invalid(f"too many symbolic links: {shown(path)}")
            if node.target.startswith(b"/"):
                found = ()
            waiting += reversed(node.target.split(b"/"))
        return found

    def find(self, path: Path) -> tuple[Path, Node] | None:
        """The file that a path leads to, all links followed."""
        place = self.evaluate(path)
        node = self.look(place)
        return None if node is None else (place, node)

    def read(self, path: Path, *, limit: int) -> bytes | None:
        """A small file's bytes, links followed; None when there is no such file. Invalid when it is over the limit."""
        found = self.find(path)
        if found is None or found[1].kind is not FileKind.REGULAR:
            return None
        if found[1].size > limit:
            raise Invalid(f"{shown(path)}: the file has {found[1].size} bytes; at most {limit} are read")
        return b"".join(self.content(*found))

    def walk(self, path: Path) -> Iterator[tuple[Path, Node]]:
        """Everything below a directory, parents first, names sorted."""
        waiting = [(*path, name) for name in reversed(self.names(path))]
        while waiting:
            place = waiting.pop()
            node = self.look(place)
            if node is None:
                continue
            yield place, node
            if node.is_directory:
                waiting += [(*place, name) for name in reversed(self.names(place))]

    def digest(self, path: Path, node: Node) -> str:
        """SHA-256 of a regular file's bytes, read once per file."""
        found = self._digests.get(node.key)
        if found is None:
            sha256 = hashlib.sha256()
            for piece in self.content(path, node):
                sha256.update(piece)
            found = self._digests[node.key] = sha256.hexdigest()
        return found


class EmptyTree(Tree):
    """Nothing: what FROM scratch begins with."""

    def look(self, path: Path) -> Node | None:
        return None if path else Node(kind=FileKind.DIRECTORY, mode=0o755)

    def names(self, path: Path) -> list[bytes]:
        return []

    def content(self, path: Path, node: Node) -> Iterator[bytes]:
        return iter(())


def split(text: str | bytes) -> Path:
    """A path as its components, cleaned as path.Clean does; what climbs above the root stays at the root."""
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    parts: list[bytes] = []
    for part in raw.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return tuple(parts)


def shown(path: Path) -> str:
    """A path for messages."""
    return b"/".join(path).decode("utf-8", "backslashreplace")
