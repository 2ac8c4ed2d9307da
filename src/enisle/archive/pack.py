"""Writing files of a directory tree as a tar stream, while somebody else may be changing the tree."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from enisle.archive.beneath import IN_ROOT, LITERALLY, directory, evaluate, look
from enisle.archive.entry import Entry, FileKind, keeps_xattr
from enisle.archive.pax import SPARSE_LIMIT
from enisle.archive.writer import ByteSink, TarWriter
from enisle.linux.syscalls import RESOLVE_NO_XDEV, openat2

_CHUNK = 1 << 18
# Not blocking: a fifo may have been put in the place of a file.
_CONTENT = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV})

_GO_TYPE_BITS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_GO_MODE_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}
_KINDS = {
    stat.S_IFREG: FileKind.REGULAR,
    stat.S_IFDIR: FileKind.DIRECTORY,
    stat.S_IFLNK: FileKind.SYMBOLIC_LINK,
    stat.S_IFCHR: FileKind.CHARACTER,
    stat.S_IFBLK: FileKind.BLOCK,
    stat.S_IFIFO: FileKind.FIFO,
}


def go_mode(mode: int) -> int:
    """st_mode as Go's os.FileMode, which Docker's API speaks."""
    bits = mode & 0o777 | _GO_TYPE_BITS.get(stat.S_IFMT(mode), 0)
    for unix, go in _GO_MODE_BITS.items():
        if mode & unix:
            bits |= go
    return bits


class Packer:
    """Adds files to a tar stream by directory descriptor and name, and remembers hard links.

    ``exact``: times to the nanosecond, holes as such, and overlayfs's attributes, where Docker's own has none of it.
    """

    def __init__(self, sink: ByteSink, *, exact: bool = False) -> None:
        self._exact = exact
        self._writer = TarWriter(sink)
        self._linked: dict[tuple[int, int], bytes] = {}

    def add(self, parent: int, name: bytes, status: os.stat_result, shown_as: bytes) -> None:
        """Add one file, not what is below it. Sockets are left out, as is what vanished meanwhile."""
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return
        entry = entry_of(status, kind, shown_as)
        if self._exact:
            entry.mtime_ns = status.st_mtime_ns
        if kind is not FileKind.DIRECTORY and status.st_nlink > 1:
            first = self._linked.setdefault((status.st_dev, status.st_ino), shown_as)
            if first != shown_as:
                entry.kind, entry.target, entry.size = FileKind.HARD_LINK, first, 0
                self._writer.add(entry)
                return
        try:
            self._add_content(parent, name, entry)
        except OSError as error:
            if error.errno not in VANISHED:
                raise

    def _add_content(self, parent: int, name: bytes, entry: Entry) -> None:
        if entry.kind is FileKind.SYMBOLIC_LINK:
            entry.target = os.readlink(name, dir_fd=parent)
            self._writer.add(entry)
        elif entry.kind in (FileKind.REGULAR, FileKind.DIRECTORY):
            wanted = os.O_DIRECTORY if entry.kind is FileKind.DIRECTORY else 0
            fd = os.open(name, _CONTENT | wanted, dir_fd=parent)
            try:
                self.add_open(fd, entry)
            finally:
                os.close(fd)
        else:
            self._writer.add(entry)

    def add_open(self, fd: int, entry: Entry) -> None:
        """Add an open file or directory; a file that is no longer a regular one is left out."""
        entry.xattrs = read_xattrs(fd, overlay=self._exact)
        if entry.kind is FileKind.DIRECTORY:
            self._writer.add(entry)
            return
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            entry.size = entry.stored = status.st_size
            if self._exact and status.st_blocks * 512 < status.st_size:
                entry.sparse = _parts(fd, status.st_size)
            self._writer.add(entry, _content(fd) if entry.sparse is None else _content_of(fd, entry.sparse))

    def add_whiteout(self, shown_as: bytes) -> None:
        """Add an empty file that marks a deletion."""
        self._writer.add(Entry(name=shown_as, mode=0))

    def add_empty(self, status: os.stat_result, shown_as: bytes) -> None:
        """Add the place of a mount: an empty file, or a directory."""
        kind = FileKind.DIRECTORY if stat.S_ISDIR(status.st_mode) else FileKind.REGULAR
        entry = entry_of(status, kind, shown_as)
        entry.size = entry.stored = 0
        self._writer.add(entry)

    def close(self) -> None:
        """End the archive."""
        self._writer.close()


def entry_of(status: os.stat_result, kind: FileKind, name: bytes) -> Entry:
    """The entry for a file; its time in whole seconds, as Docker writes it, so that equal trees are equal archives."""
    is_device = kind in (FileKind.CHARACTER, FileKind.BLOCK)
    return Entry(
        name=name,
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind is FileKind.REGULAR else 0,
        mtime_ns=status.st_mtime_ns // 1_000_000_000 * 1_000_000_000,
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0),
    )


def read_xattrs(fd: int, *, overlay: bool = False) -> dict[bytes, bytes]:
    """The extended attributes that travel; ``overlay`` as of keeps_xattr."""
    try:
        names = [os.fsencode(name) for name in os.listxattr(fd)]
        return {name: os.getxattr(fd, name) for name in names if keeps_xattr(name, overlay=overlay)}
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA, errno.EPERM):
            return {}
        raise


def _content(fd: int) -> Iterator[bytes]:
    while piece := os.read(fd, _CHUNK):
        yield piece


def _parts(fd: int, size: int) -> list[tuple[int, int]] | None:
    """Where a file's data lies, ended by an empty part at its end; None: no holes, or too many to write down."""
    parts: list[tuple[int, int]] = []
    at = 0
    while at < size and len(parts) < SPARSE_LIMIT - 1:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
            end = min(os.lseek(fd, at, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data any more
                at = size
                break
            return None
        parts.append((at, end - at))
        at = end
    if at < size or parts == [(0, size)]:
        return None
    return [*parts, (size, 0)]


def _content_of(fd: int, parts: list[tuple[int, int]]) -> Iterator[bytes]:
    """The data of those parts; zeros for what was cut off meanwhile."""
    for offset, length in parts:
        while length:
            piece = os.pread(fd, min(length, _CHUNK), offset) or bytes(min(length, _CHUNK))
            yield piece
            offset += len(piece)
            length -= len(piece)


def _listed(fd: int) -> list[bytes]:
    return sorted(os.fsencode(name) for name in os.listdir(fd))


def _walk(packer: Packer, root: int, top: bytes, shown_top: bytes, resolve: int) -> None:
    """Add everything below the directory ``top``. Each directory is found anew from the root: depth costs nothing."""
    waiting = [(top, shown_top)]
    while waiting:
        path, shown_as = waiting.pop()
        below: list[tuple[bytes, bytes]] = []
        try:
            with directory(root, path, resolve=resolve) as fd:
                for name in _listed(fd):
                    status = look(fd, name)
                    if status is None:
                        continue
                    child = shown_as + name
                    if resolve & RESOLVE_NO_XDEV and _is_mount(fd, name, status):
                        packer.add_empty(status, child)
                        continue
                    packer.add(fd, name, status, child)
                    if stat.S_ISDIR(status.st_mode):
                        below.append((path + b"/" + name, child + b"/"))
        except OSError as error:
            if error.errno not in VANISHED:
                raise
        waiting += reversed(below)


def _is_mount(parent: int, name: bytes, status: os.stat_result) -> bool:
    """Whether something is mounted on a name. Only openat2 knows: a bind mount may be of the same file system."""
    if stat.S_IFMT(status.st_mode) not in (stat.S_IFDIR, stat.S_IFREG):
        return False
    try:
        os.close(_open_path(parent, name))
    except OSError as error:
        return error.errno == errno.EXDEV
    return False


def _open_path(parent: int, name: bytes) -> int:
    return openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, resolve=LITERALLY | RESOLVE_NO_XDEV)


def _split(root: int, path: bytes) -> tuple[bytes, bytes]:
    """Parent directory and last name of ``path``, links in the parent followed, one at the end not.

    A path that ends in "/" or "/." names a directory through a link. ("", "") is the root.
    """
    if path.endswith((b"/", b"/.", b"/..")) or path in (b".", b".."):
        above, _, name = evaluate(root, path).rpartition(b"/")
        return above, name
    above, _, name = path.rpartition(b"/")
    return evaluate(root, above), name


def find(root: int, path: bytes) -> tuple[bytes, bytes, os.stat_result]:
    """Parent, name and attributes of a path inside the root. FileNotFoundError; NotADirectoryError for "file/"."""
    above, name = _split(root, path)
    if not name:
        return b"", b"", os.fstat(root)
    with directory(root, above) as parent:
        status = look(parent, name)
    if status is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if path.endswith((b"/", b"/.")) and not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    return above, name, status


def pack(root: int, path: str, sink: ByteSink, *, shown_as: bytes | None = None) -> None:
    """Write the file or tree at ``path`` as a tar; names begin with the path's last component, as docker cp wants.

    ``shown_as`` is put in the place of that component. A link at the end is packed as a link. Mounts below are
    entered. FileNotFoundError when there is nothing.
    """
    raw = os.fsencode(path)
    above, name, status = find(root, raw)
    base = raw.rstrip(b"/").rpartition(b"/")[2] if shown_as is None else shown_as
    packer = Packer(sink)
    with directory(root, above) as parent:
        packer.add(parent, name or b".", status, base or b"/")
    if stat.S_ISDIR(status.st_mode):
        _walk(packer, root, above + b"/" + name, base + b"/", IN_ROOT if not name else LITERALLY)
    packer.close()


def export(root: int, sink: ByteSink) -> None:
    """Write the whole root as a tar; of mounts below it only the places they are mounted on."""
    packer = Packer(sink)
    _walk(packer, root, b"", b"", LITERALLY | RESOLVE_NO_XDEV)
    packer.close()


def pack_exact(root: int, sink: ByteSink) -> None:
    """Write a whole directory so that unpacking gives it again: equal trees give equal archives. Names are relative."""
    packer = Packer(sink, exact=True)
    packer.add(root, b".", os.fstat(root), b".")
    _walk(packer, root, b"", b"./", LITERALLY | RESOLVE_NO_XDEV)
    packer.close()
