"""A tar archive as a tree: the archive stays one file on the disk, and is never unpacked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path as FilePath

from enisle.archive.entry import ArchiveError, Entry, FileKind, components, keeps_xattr
from enisle.archive.reader import TarReader
from enisle.build.tree import Node, Path, Tree, shown
from enisle.drivers.decompress import plain
from enisle.errors import Exhausted, Invalid

_CHUNK = 1 << 18
_BATCH_BYTES = 1 << 20
_ENTRIES_LIMIT = 2_000_000
Parts = tuple[tuple[int, int, int], ...]  # offset in the file, offset in the archive, length


class ArchiveTree(Tree):
    """The members of an archive by name, as unpacking it would leave them. Owns a descriptor: :meth:`close` it."""

    def __init__(self, path: FilePath) -> None:
        super().__init__()
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._nodes: dict[Path, Node] = {(): Node(kind=FileKind.DIRECTORY, mode=0o755)}
        self._children: dict[Path, set[bytes]] = {(): set()}
        self._parts: dict[object, Parts] = {}

    def close(self) -> None:
        """Let go of the archive."""
        os.close(self._fd)

    def index(self) -> None:
        """Read all headers. Blocks for as long as reading the file takes. Raises Invalid for what is no tar."""
        try:
            with os.fdopen(os.dup(self._fd), "rb", buffering=0) as file:
                reader = TarReader(file)
                for entry in reader:
                    if len(self._nodes) > _ENTRIES_LIMIT:
                        raise ArchiveError(f"it holds more than {_ENTRIES_LIMIT} files")
                    self._add(entry, reader.position)
        except ArchiveError as error:
            raise Invalid(f"the archive cannot be read: {error}") from error

    def hide(self, ignored: Callable[[str], bool]) -> None:
        """Forget every file that ``ignored`` (given its path) is true of, and directories left without a reason."""
        for path in sorted(self._nodes, key=len, reverse=True):
            if path and not self._children.get(path) and ignored(shown(path)):
                self.forget(path)

    def forget(self, path: Path) -> None:
        """Take out one name, with all below it."""
        waiting = [path]
        while waiting:
            gone = waiting.pop()
            self._nodes.pop(gone, None)
            waiting += [(*gone, name) for name in self._children.pop(gone, ())]
        self._children[path[:-1]].discard(path[-1])

    def detached(self, path: Path) -> ArchiveTree:
        """A directory as a tree of its own, forgotten here. Invalid when it is no directory."""
        node = self._nodes.get(path)
        if node is None or not node.is_directory or not path:
            raise Invalid(f"{shown(path)}: no such directory in the build context")
        tree = ArchiveTree(FilePath(f"/proc/self/fd/{self._fd}"))
        tree._parts = self._parts
        count = len(path)
        tree._nodes |= {place[count:]: one for place, one in self._nodes.items() if place[:count] == path}
        tree._children |= {place[count:]: names for place, names in self._children.items() if place[:count] == path}
        self.forget(path)
        return tree

    # --- looking ---

    def look(self, path: Path) -> Node | None:
        return self._nodes.get(path)

    def names(self, path: Path) -> list[bytes]:
        return sorted(self._children.get(path, ()))

    def content(self, path: Path, node: Node) -> Iterator[bytes]:
        """The bytes of a regular file; holes are zeros."""
        at = 0
        for offset, start, length in self._parts.get(node.key, ()):
            yield from _zeros(offset - at)
            done = 0
            while done < length:
                piece = os.pread(self._fd, min(_CHUNK, length - done), start + done)
                if not piece:
                    raise Invalid(f"{shown(path)}: the archive ends too early")
                done += len(piece)
                yield piece
            at = offset + length
        yield from _zeros(node.size - at)

    # --- making ---

    def _add(self, entry: Entry, position: int) -> None:
        own = tuple(components(entry.name))
        if not own:
            return
        path = (*self._directory(own[:-1]), own[-1])
        if entry.kind is FileKind.HARD_LINK:
            self._link(path, entry)
            return
        node = Node(
            kind=entry.kind,
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            size=entry.size,
            mtime_ns=entry.mtime_ns,
            target=entry.target,
            device=entry.device,
            key=position,
            xattrs={name: value for name, value in entry.xattrs.items() if keeps_xattr(name)},
        )
        if entry.kind is FileKind.REGULAR:
            self._parts[position] = tuple(_parts(entry, position))
        self._put(path, node)

    def _link(self, path: Path, entry: Entry) -> None:
        target = self.evaluate(tuple(components(entry.target)), last=False)
        node = self._nodes.get(target)
        if node is None or node.is_directory:
            raise ArchiveError(f"{shown(path)}: hard link to {shown(target)}, which is no file of the archive")
        if target != path:
            self._put(path, node)

    def _put(self, path: Path, node: Node) -> None:
        old = self._nodes.get(path)
        if old is not None and not (old.is_directory and node.is_directory):
            self.forget(path)
        self._nodes[path] = node
        self._children[path[:-1]].add(path[-1])
        if node.is_directory:
            self._children.setdefault(path, set())

    def _directory(self, path: Path) -> Path:
        """Where a directory really is, made if need be."""
        node = self._nodes.get(path)
        if node is not None and node.is_directory:
            return path
        place: Path = ()
        for part in path:
            place = (*place, part)
            node = self._nodes.get(place)
            if node is not None and node.kind is FileKind.SYMBOLIC_LINK:
                place = self.evaluate(place)  # not always: it begins at the root, and paths may be deep
                node = self._nodes.get(place)
            if node is None:
                place = (*self._directory(place[:-1]), place[-1])
                self._put(place, Node(kind=FileKind.DIRECTORY, mode=0o755))
            elif not node.is_directory:
                raise ArchiveError(f"{shown(path)}: not a directory")
        return place


def _parts(entry: Entry, position: int) -> Iterator[tuple[int, int, int]]:
    start = position
    for offset, length in entry.sparse if entry.sparse is not None else [(0, entry.stored)]:
        yield offset, start, length
        start += length


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield bytes(min(count, _CHUNK))
        count -= _CHUNK


async def spool(source: AsyncIterator[bytes], path: FilePath, *, limit_bytes: int | None = None) -> int:
    """Write a stream, decompressed if it was compressed, to a new file; its size in bytes.

    Invalid when it is over the limit, Exhausted when the disk is full.
    """
    size = 0
    batch: list[bytes] = []
    pending = 0
    with path.open("xb", buffering=0) as file:
        async for piece in plain(source):
            size += len(piece)
            pending += len(piece)
            if limit_bytes is not None and size > limit_bytes:
                raise Invalid(f"more than the limit of {limit_bytes} bytes was sent")
            batch.append(piece)
            if pending >= _BATCH_BYTES:
                await asyncio.to_thread(write_context, file.fileno(), b"".join(batch))
                batch, pending = [], 0
        await asyncio.to_thread(write_context, file.fileno(), b"".join(batch))
    return size


def write_context(fd: int, data: bytes) -> None:
    """All of it to a file of the build. Raises Exhausted when the disk is full."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        raise Exhausted(f"the build context cannot be stored: {error.strerror}") from error
