"""The files that one COPY, ADD or WORKDIR puts over an image: as a digest for the cache, and as an OCI layer."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

from enisle.archive.entry import Entry, FileKind
from enisle.archive.writer import TarWriter
from enisle.build.tree import Node, Path, Tree, shown
from enisle.errors import Invalid

_BATCH_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """One file of the layer. ``tree`` and ``source``: where its bytes are; ``data``: they are these."""

    node: Node
    tree: Tree | None = None
    source: Path = ()
    data: bytes | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


class LayerPlan:
    """Files to be put over ``base``. ``now_ns``: the time of what is made anew; ``limit_ns``: no file is younger."""

    def __init__(self, base: Tree, *, now_ns: int, limit_ns: int | None = None) -> None:
        self.base = base
        self.now_ns = now_ns
        self._limit_ns = limit_ns
        self._files: dict[Path, Planned] = {}
        self._directories: dict[Path, Path] = {}  # as asked for -> where it is
        self._kept: dict[Path, Node] = {}  # directories of the base that lead to what is planned

    def __bool__(self) -> bool:
        return bool(self._files)

    def kind_at(self, path: Path) -> FileKind | None:
        """What is, or will be, at a path; links followed."""
        place = self.base.evaluate(path)
        if place in self._files:
            return self._files[place].node.kind
        node = self.base.look(place)
        return node.kind if node else None

    def directory(self, path: Path, *, owner: tuple[int, int], mode: int = 0o755, mtime_ns: int | None = None) -> Path:
        """Make a directory and those above it unless they are there; where it is once links are followed."""
        if path in self._directories:
            return self._directories[path]
        made: Path = ()
        for part in path:
            made = self.base.evaluate((*made, part))
            node = self._files[made].node if made in self._files else self.base.look(made)
            if node is None:
                self._lead_to(made)
                is_last = len(made) == len(path)
                self._files[made] = Planned(
                    node=Node(
                        kind=FileKind.DIRECTORY,
                        mode=mode if is_last else 0o755,
                        uid=owner[0],
                        gid=owner[1],
                        mtime_ns=self.now_ns if mtime_ns is None or not is_last else mtime_ns,
                    )
                )
            elif not node.is_directory:
                raise Invalid(f"cannot copy to non-directory: /{shown(made)}")
        self._directories[path] = made
        return made

    def put(self, path: Path, planned: Planned) -> None:
        """Put a file (no directory) at a path; directories above it are made of its owner."""
        if not path:
            raise Invalid("cannot copy a file over the root directory")
        owner = (planned.node.uid, planned.node.gid)
        above = self.directory(path[:-1], owner=owner)
        place = (*above, path[-1])
        there = self._files[place].node if place in self._files else self.base.look(place)
        if there is not None and there.is_directory:
            raise Invalid(f"cannot copy to directory: /{shown(place)}")
        self._lead_to(place)
        self._files[place] = planned

    def take(self, tree: Tree) -> None:
        """Put all files of a tree, as they are."""
        for path, node in tree.walk(()):
            if node.is_directory:
                self.directory(path, owner=(node.uid, node.gid), mode=node.mode, mtime_ns=node.mtime_ns)
            else:
                xattrs = tuple(sorted(tree.xattrs(path, node).items()))
                self.put(path, Planned(node=node, tree=tree, source=path, xattrs=xattrs))

    def _lead_to(self, path: Path) -> None:
        for count in range(1, len(path)):
            above = path[:count]
            if above not in self._files and above not in self._kept:
                node = self.base.look(above)
                if node is not None:
                    self._kept[above] = node

    # --- what it comes to ---

    def digest(self, *, under: Path = ()) -> str:
        """SHA-256 of all that is planned, times aside: equal content is equal, whenever it was written.

        ``under``: the directory whose own name does not count.
        """
        sha256 = hashlib.sha256()
        for path in sorted(self._files):
            one = self._files[path]
            node = one.node
            content = ""
            if node.kind is FileKind.REGULAR:
                content = hashlib.sha256(one.data).hexdigest() if one.data is not None else _digest(one)
            attributes = (node.kind.value, node.mode, node.uid, node.gid, node.target, node.device)
            line = (path[len(under) :], *attributes, one.xattrs, content)
            sha256.update(repr(line).encode() + b"\n")
        return sha256.hexdigest()

    def only_kind(self) -> str:
        """ "file", "dir" or "multi": how the history calls what was copied."""
        if len(self._files) == 1:
            return "dir" if next(iter(self._files.values())).node.is_directory else "file"
        return "dir" if any(one.node.is_directory for one in self._files.values()) else "multi"

    def pieces(self) -> Iterator[bytes]:
        """The layer's tar. Blocks while files are read."""
        sink = Sink()
        writer = TarWriter(sink)
        written: dict[tuple[int, object, int, int, int], bytes] = {}
        kept = {path: Planned(node=node, tree=self.base, source=path) for path, node in self._kept.items()}
        for path, planned in sorted((kept | self._files).items()):
            node = planned.node
            entry = self._entry(path, planned, in_base=path not in self._files)
            identity = (id(planned.tree), node.key, node.mode, node.uid, node.gid)
            if node.kind is FileKind.REGULAR and planned.tree is not None and node.key is not None:
                first = written.setdefault(identity, entry.name)
                if first != entry.name:
                    entry = replace(entry, kind=FileKind.HARD_LINK, target=first, size=0, stored=0)
            for _ in writer.adding(entry, _content(planned)):
                yield from sink.taken()
            yield from sink.taken()
        writer.close()
        yield from sink.taken()

    def _entry(self, path: Path, planned: Planned, *, in_base: bool) -> Entry:
        node = planned.node
        xattrs = dict(planned.xattrs)
        if in_base:
            xattrs = self.base.xattrs(path, node)
        limit = node.mtime_ns if self._limit_ns is None or in_base else min(node.mtime_ns, self._limit_ns)
        return Entry(
            name=b"/".join(path),
            kind=node.kind,
            mode=node.mode,
            uid=node.uid,
            gid=node.gid,
            size=node.size if node.kind is FileKind.REGULAR else 0,
            mtime_ns=limit // 1_000_000_000 * 1_000_000_000,
            target=node.target,
            device=node.device,
            xattrs=xattrs,
        )


class Sink:
    """Collects what a TarWriter writes."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes | memoryview, /) -> None:
        self._pieces.append(bytes(data))

    def taken(self) -> list[bytes]:
        pieces, self._pieces = self._pieces, []
        return pieces


def _digest(planned: Planned) -> str:
    assert planned.tree is not None
    return planned.tree.digest(planned.source, planned.node)


def _content(planned: Planned) -> Iterator[bytes]:
    if planned.data is not None:
        return iter((planned.data,))
    if planned.tree is None or planned.node.kind is not FileKind.REGULAR:
        return iter(())
    return planned.tree.content(planned.source, planned.node)


async def threaded(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces of a blocking iterator in large batches, made in a thread."""
    while batch := await asyncio.to_thread(_batch, pieces):
        yield batch


def _batch(pieces: Iterator[bytes]) -> bytes:
    out: list[bytes] = []
    size = 0
    for piece in pieces:
        out.append(piece)
        size += len(piece)
        if size >= _BATCH_BYTES:
            break
    return b"".join(out)
