"""What an overlay's upper directory changes in the layers below it: as a list, and as an OCI layer.

Deletions are character devices 0:0 and directories that hide those below carry trusted.overlay.opaque
(Documentation/filesystems/overlayfs.rst); a layer says the same with .wh. files (image-spec, layer.md). The overlay
must be mounted without redirect_dir and metacopy, so that the upper directory is complete in itself.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from enisle.archive.apply import OPAQUE_XATTR
from enisle.archive.beneath import LITERALLY, directory, look, open_directory
from enisle.archive.entry import ArchiveError, shown
from enisle.archive.pack import Packer, read_xattrs
from enisle.archive.writer import ByteSink

MODIFIED, ADDED, DELETED = 0, 1, 2

PLACES = frozenset(
    {
        b"/.dockerenv",
        b"/dev",
        b"/dev/console",
        b"/dev/pts",
        b"/dev/shm",
        b"/etc/hostname",
        b"/etc/hosts",
        b"/etc/mtab",
        b"/etc/resolv.conf",
        b"/proc",
        b"/sys",
    }
)
"""What starting an instance may create for its mounts; unless the workload filled them, they are nobody's change."""

_FOREIGN = (b"trusted.overlay.redirect", b"trusted.overlay.metacopy")


@dataclass(slots=True)
class _Change:
    """One name in a directory of the upper.

    ``hides``: an opaque directory over one below. ``hidden``: it lies in such a directory, so that a layer says it
    whole. ``listed``: False for a directory that may only lead to a change below it.
    """

    path: bytes
    name: bytes
    status: os.stat_result
    kind: int
    hides: bool = False
    hidden: bool = False
    listed: bool = True


def changes(lowers: Sequence[int], upper: int, *, places: Collection[bytes] = PLACES) -> list[tuple[str, int]]:
    """Paths that differ from the layers below, sorted; 0 modified, 1 added, 2 deleted, as Docker numbers them.

    ``lowers``: descriptors of the layers' directories, topmost first. ``places``: created names that do not count.
    """
    found: dict[bytes, int] = {}
    for _, change in _scan(lowers, upper, places):
        if change.listed:
            found[change.path] = change.kind
            _add_parents(found, change.path)
    return [(os.fsdecode(path), found[path]) for path in sorted(found)]


def _add_parents(found: dict[bytes, int], path: bytes) -> None:
    above = path.rpartition(b"/")[0]
    while above and above not in found:
        found[above] = MODIFIED
        above = above.rpartition(b"/")[0]


def layer(lowers: Sequence[int], upper: int, sink: ByteSink, *, places: Collection[bytes] = PLACES) -> None:
    """Write the upper as an uncompressed OCI layer. Arguments as of :func:`changes`.

    Raises ArchiveError for an upper that depends on the layers below (redirects, metadata-only copies).
    """
    wanted = {os.fsencode(path) for path, _ in changes(lowers, upper, places=places)}
    packer = Packer(sink)
    for parent, change in _scan(lowers, upper, places):
        if change.path not in wanted and not change.hidden:
            continue
        shown_as = change.path[1:]
        if change.kind == DELETED and change.hidden:
            continue
        if change.kind == DELETED:
            above, slash, name = shown_as.rpartition(b"/")
            packer.add_whiteout(above + slash + b".wh." + name)
            continue
        packer.add(parent, change.name, change.status, shown_as)
        if change.hides:
            packer.add_whiteout(shown_as + b"/.wh..wh..opq")
    packer.close()


@dataclass(slots=True)
class _Level:
    """A directory of the upper that is being read. ``layers``: those that show through it. ``todo``: its names that are
    still to be told, the next one last; None: not read yet."""

    path: bytes
    layers: tuple[int, ...]
    opaque: bool = False
    todo: list[tuple[_Change | None, _Level | None]] | None = None


def _scan(lowers: Sequence[int], upper: int, places: Collection[bytes]) -> Iterator[tuple[int, _Change]]:
    """Each change with its directory's descriptor, valid until the next step; what is in a directory comes right after
    it, as a guest's agent has it. However deep the tree, one directory is open at a time."""
    levels = [_Level(b"", tuple(range(len(lowers))))]
    while levels:
        level = levels[-1]
        with ExitStack() as stack:
            try:
                fd = stack.enter_context(directory(upper, level.path, resolve=LITERALLY))
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    levels.pop()
                    continue
                raise
            if level.todo is None:
                level.todo = _read(fd, level, _Below(lowers, level.layers, level.path, stack), places)[::-1]
            while level.todo:
                change, deeper = level.todo.pop()
                if change is not None:
                    yield fd, change
                if deeper is not None:
                    if not level.todo:
                        levels.pop()
                    levels.append(deeper)
                    break
            else:
                levels.pop()


def _read(
    fd: int, level: _Level, below: _Below, places: Collection[bytes]
) -> list[tuple[_Change | None, _Level | None]]:
    """What is in one directory, sorted by name."""
    found: dict[bytes, tuple[_Change | None, _Level | None]] = {}
    for name in (os.fsencode(text) for text in os.listdir(fd)):
        status = look(fd, name)
        if status is None:
            continue
        path = level.path + b"/" + name
        change, visible = _compare(fd, path, name, status, below, hidden=level.opaque, places=places)
        deeper = None
        if stat.S_ISDIR(status.st_mode):
            deeper = _Level(path, visible, level.opaque or (change is not None and change.hides))
        found[name] = change, deeper
    if level.opaque:
        found |= {change.name: (change, None) for change in below.lost(fd, level.path)}
    return [found[name] for name in sorted(found)]


class _Below:
    """One directory as the layers below show it."""

    def __init__(self, lowers: Sequence[int], layers: tuple[int, ...], path: bytes, stack: ExitStack) -> None:
        self._parts: list[tuple[int, int]] = []
        for index in layers:
            fd = open_directory(lowers[index], path, resolve=LITERALLY)
            stack.callback(os.close, fd)
            self._parts.append((index, fd))

    def look(self, name: bytes) -> tuple[os.stat_result | None, int, tuple[int, ...]]:
        """Attributes of the topmost ``name``, its directory's descriptor, and the layers that make it up if a
        directory; None: no such name."""
        top: os.stat_result | None = None
        where = -1
        layers: list[int] = []
        for index, fd in self._parts:
            status = look(fd, name)
            if status is None:
                continue
            if is_whiteout(status) or (top is not None and not stat.S_ISDIR(status.st_mode)):
                break
            if top is None:
                top, where = status, fd
                if not stat.S_ISDIR(status.st_mode):
                    break
            layers.append(index)
            if _is_opaque(fd, name):
                break
        return top, where, tuple(layers)

    def lost(self, upper: int, path: bytes) -> list[_Change]:
        """What an opaque directory hides: names seen below that it does not have itself."""
        names = {os.fsencode(text) for _, fd in self._parts for text in os.listdir(fd)}
        gone = []
        for name in sorted(names):
            status = self.look(name)[0]
            if status is not None and look(upper, name) is None:
                gone.append(_Change(path + b"/" + name, name, status, DELETED, hidden=True))
        return gone


def _compare(
    fd: int,
    path: bytes,
    name: bytes,
    status: os.stat_result,
    below: _Below,
    *,
    hidden: bool,
    places: Collection[bytes],
) -> tuple[_Change | None, tuple[int, ...]]:
    """The change that one name of the upper is, if it is one; and the layers that show through it."""
    old, where, layers = below.look(name)
    if is_whiteout(status):
        return (_Change(path, name, status, DELETED, hidden=hidden) if old is not None else None), ()
    if not stat.S_ISDIR(status.st_mode):
        if path in places and status.st_size == 0:
            return None, ()
        return _Change(path, name, status, ADDED if old is None else MODIFIED, hidden=hidden), ()
    _refuse_foreign(fd, path, name)
    if old is None or not stat.S_ISDIR(old.st_mode):
        listed = path not in places
        return _Change(path, name, status, ADDED if old is None else MODIFIED, hidden=hidden, listed=listed), ()
    hides = _is_opaque(fd, name) and not hidden
    only_leads = not hides and _same_directory(fd, where, name, status, old, holds_places=_holds_places(path, places))
    return _Change(path, name, status, MODIFIED, hides=hides, hidden=hidden, listed=not only_leads), layers


def _holds_places(path: bytes, places: Collection[bytes]) -> bool:
    return any(place.rpartition(b"/")[0] == path for place in places)


def _same_directory(
    upper: int, lower: int, name: bytes, new: os.stat_result, old: os.stat_result, *, holds_places: bool
) -> bool:
    """Whether a directory was only copied up. Its time does not count where starting an instance may have moved it."""
    if (new.st_mode, new.st_uid, new.st_gid) != (old.st_mode, old.st_uid, old.st_gid):
        return False
    if new.st_mtime_ns != old.st_mtime_ns and not holds_places:
        return False
    with directory(upper, name, resolve=LITERALLY) as a, directory(lower, name, resolve=LITERALLY) as b:
        return read_xattrs(a) == read_xattrs(b)


def is_whiteout(status: os.stat_result) -> bool:
    """Whether a file of an upper directory marks a deletion."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(parent: int, name: bytes) -> bool:
    with directory(parent, name, resolve=LITERALLY) as fd:
        try:
            return os.getxattr(fd, OPAQUE_XATTR) == b"y"
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.ENOTSUP):
                return False
            raise


def _refuse_foreign(parent: int, path: bytes, name: bytes) -> None:
    with directory(parent, name, resolve=LITERALLY) as fd:
        try:
            present = {os.fsencode(attribute) for attribute in os.listxattr(fd)}
        except OSError:
            return
    if present.intersection(_FOREIGN):
        raise ArchiveError(
            f"{shown(path)}: the overlay was mounted with redirect_dir or metacopy, which layers cannot say"
        )
