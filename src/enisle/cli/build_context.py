"""A directory as the tar that a build is sent: without what .dockerignore leaves out, owned by nobody in particular."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

from enisle.archive.entry import Entry, FileKind
from enisle.archive.pack import entry_of
from enisle.archive.writer import TarWriter
from enisle.errors import Invalid, NotFound
from enisle.formats import dockerignore

_CHUNK = 1 << 18
_KINDS = {
    stat.S_IFREG: FileKind.REGULAR,
    stat.S_IFDIR: FileKind.DIRECTORY,
    stat.S_IFLNK: FileKind.SYMBOLIC_LINK,
    stat.S_IFIFO: FileKind.FIFO,
}


class _Sink:
    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: bytes | memoryview, /) -> None:
        self._pieces.append(bytes(data))
        self._size += len(data)

    def taken(self, least: int = 1) -> Iterator[bytes]:
        """What was written, once there is enough of it."""
        if self._size >= least:
            yield b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0


def packed(
    directory: str,
    dockerfile: str,
    extra: tuple[str, bytes] | None = None,
    others: Mapping[str, str] | None = None,
) -> Iterator[bytes]:
    """The tar of a context. ``dockerfile``: its path in it. ``extra``: a name and content to be added.

    ``others``: further directories, by the path in the tar that each is to be below.

    The Dockerfile and .dockerignore are always sent; the daemon leaves them out of what can be copied.
    """
    for place in (directory, *(others or {}).values()):
        if not os.path.isdir(place):
            raise NotFound(f"unable to prepare context: path {place!r} not found, or no directory")
    needed = {dockerfile, ".dockerignore", f"{dockerfile}.dockerignore"}
    sink = _Sink()
    writer = TarWriter(sink)
    if extra is not None:
        name, data = extra
        writer.add(Entry(name=name.encode("utf-8", "surrogateescape"), size=len(data)), (data,))
    yield from _tree(sink, writer, directory, _ignore(directory, dockerfile), needed)
    for inside, place in (others or {}).items():
        writer.add(Entry(name=os.fsencode(inside), kind=FileKind.DIRECTORY, mode=0o755))
        yield from _tree(sink, writer, place, _ignore(place, ""), set(), inside)
    writer.close()
    yield from sink.taken()


def _tree(
    sink: _Sink, writer: TarWriter, directory: str, ignore: dockerignore.Ignore, needed: set[str], inside: str = ""
) -> Iterator[bytes]:
    for path, status in _walk(directory, ignore, needed):
        for _ in _add(writer, directory, path, status, inside):
            yield from sink.taken(_CHUNK)
        yield from sink.taken(_CHUNK)


def _ignore(directory: str, dockerfile: str) -> dockerignore.Ignore:
    for name in (f"{dockerfile}.dockerignore", ".dockerignore") if dockerfile else (".dockerignore",):
        try:
            with open(os.path.join(directory, name), encoding="utf-8", errors="surrogateescape") as file:
                return dockerignore.parse(file.read())
        except FileNotFoundError:
            continue
    return dockerignore.Ignore([])


def _walk(directory: str, ignore: dockerignore.Ignore, needed: set[str]) -> Iterator[tuple[str, os.stat_result]]:
    waiting = [""]
    while waiting:
        above = waiting.pop()
        below: list[str] = []
        with os.scandir(os.path.join(directory, above)) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            path = f"{above}/{entry.name}" if above else entry.name
            left_out = ignore.matches(path) and path not in needed
            is_directory = entry.is_dir(follow_symlinks=False)
            leads_to_needed = is_directory and any(name.startswith(f"{path}/") for name in needed)
            if not left_out:
                yield path, entry.stat(follow_symlinks=False)
            if is_directory and (not left_out or ignore.has_exceptions or leads_to_needed):
                below.append(path)
        waiting += reversed(below)


def _add(writer: TarWriter, directory: str, path: str, status: os.stat_result, inside: str = "") -> Iterator[None]:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return  # sockets and devices are no part of a context
    entry = entry_of(status, kind, os.fsencode(f"{inside}/{path}" if inside else path))
    entry.uid = entry.gid = 0
    place = os.path.join(directory, path)
    if kind is FileKind.SYMBOLIC_LINK:
        entry.target = os.fsencode(os.readlink(place))
    if kind is not FileKind.REGULAR:
        yield from writer.adding(entry, ())
        return
    try:
        fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Invalid(f"{place} cannot be read: {error.strerror}.", remedy="Add it to .dockerignore.") from error
    try:
        yield from writer.adding(entry, iter(lambda: os.read(fd, _CHUNK), b""))
    finally:
        os.close(fd)
