"""The layers of an image as one tree, read as overlayfs would show them, without mounting anything."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath

from enisle.archive.apply import OPAQUE_XATTR
from enisle.archive.beneath import LITERALLY
from enisle.archive.entry import FileKind
from enisle.archive.overlay import is_whiteout
from enisle.archive.pack import read_xattrs
from enisle.build.tree import Node, Path, Tree
from enisle.linux.syscalls import openat2

_CHUNK = 1 << 18
_KINDS = {
    stat.S_IFREG: FileKind.REGULAR,
    stat.S_IFDIR: FileKind.DIRECTORY,
    stat.S_IFLNK: FileKind.SYMBOLIC_LINK,
    stat.S_IFCHR: FileKind.CHARACTER,
    stat.S_IFBLK: FileKind.BLOCK,
    stat.S_IFIFO: FileKind.FIFO,
}
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV})
_MEMO_LIMIT = 200_000


class LayerTree(Tree):
    """``layers``: directories, topmost first, of ``image``. Owns their descriptors: :meth:`close` it."""

    def __init__(self, layers: Sequence[FilePath], image: str = "") -> None:
        super().__init__()
        self.image = image
        self._places = tuple(layers)
        self._roots = [os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for layer in layers]
        self._merged: dict[Path, tuple[int, ...]] = {(): tuple(range(len(layers)))}
        self._nodes: dict[Path, Node | None] = {}

    def close(self) -> None:
        """Close all descriptors."""
        while self._roots:
            os.close(self._roots.pop())

    def places(self, path: Path) -> list[FilePath]:
        """The host's directories that make up a directory of the image, topmost first. ``path`` holds no link."""
        inside = os.fsdecode(b"/".join(path))
        return [self._places[layer] / inside for layer in self._layers_of(path)]

    def look(self, path: Path) -> Node | None:
        if not path:
            return self._root()
        if path not in self._nodes:
            if len(self._nodes) > _MEMO_LIMIT:
                self._nodes.clear()
            self._nodes[path] = self._find(path)
        return self._nodes[path]

    def names(self, path: Path) -> list[bytes]:
        found: set[bytes] = set()
        for layer in self._layers_of(path):
            fd = self._open(layer, path, os.O_RDONLY | os.O_DIRECTORY)
            if fd < 0:
                continue
            try:
                found.update(os.fsencode(name) for name in os.listdir(fd))
            finally:
                os.close(fd)
        return sorted(name for name in found if self.look((*path, name)) is not None)

    def content(self, path: Path, node: Node) -> Iterator[bytes]:
        fd = self._open(node.layer, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        if fd < 0:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), b"/".join(path))
        try:
            while piece := os.read(fd, _CHUNK):
                yield piece
        finally:
            os.close(fd)

    def xattrs(self, path: Path, node: Node) -> dict[bytes, bytes]:
        if node.kind not in (FileKind.REGULAR, FileKind.DIRECTORY):
            return {}
        fd = self._open(node.layer, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        if fd < 0:
            return {}
        try:
            return read_xattrs(fd)
        finally:
            os.close(fd)

    def _root(self) -> Node:
        found = _node(os.fstat(self._roots[0]), 0) if self._roots else None
        return found or Node(kind=FileKind.DIRECTORY, mode=0o755)

    def _open(self, layer: int, path: Path, flags: int) -> int:
        try:
            return openat2(self._roots[layer], b"/".join(path) or b".", flags, resolve=LITERALLY)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return -1
            raise

    def _layers_of(self, path: Path) -> tuple[int, ...]:
        """The layers that make up a directory, topmost first; () for anything else."""
        if path not in self._merged:
            self.look(path)
        return self._merged.get(path, ())

    def _find(self, path: Path) -> Node | None:
        top: Node | None = None
        merged: list[int] = []
        for layer in self._layers_of(path[:-1]):
            fd = self._open(layer, path, os.O_PATH | os.O_NOFOLLOW)
            if fd < 0:
                continue
            try:
                status = os.fstat(fd)
                if is_whiteout(status) or (top is not None and not stat.S_ISDIR(status.st_mode)):
                    break
                if top is None:
                    target = os.readlink(b"", dir_fd=fd) if stat.S_ISLNK(status.st_mode) else b""
                    top = _node(status, layer, target)
                if top is None or not top.is_directory:
                    break
                merged.append(layer)
                if self._is_opaque(fd):
                    break
            finally:
                os.close(fd)
        if top is not None and top.is_directory:
            self._merged[path] = tuple(merged)
        return top

    def _is_opaque(self, fd: int) -> bool:
        try:
            return os.getxattr(f"/proc/self/fd/{fd}", OPAQUE_XATTR) == b"y"
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.ENOTSUP):
                return False
            raise


def _node(status: os.stat_result, layer: int, target: bytes = b"") -> Node | None:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    is_device = kind in (FileKind.CHARACTER, FileKind.BLOCK)
    return Node(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind is FileKind.REGULAR else 0,
        mtime_ns=status.st_mtime_ns // 1_000_000_000 * 1_000_000_000,
        target=target,
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0),
        key=(layer, status.st_ino),
        layer=layer,
    )
