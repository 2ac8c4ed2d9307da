"""``enisle cp``."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Iterable, Iterator

from enisle.archive.entry import ArchiveError, Entry, FileKind
from enisle.archive.pack import pack
from enisle.archive.reader import TarReader
from enisle.cli.archive_output import open_output, write_all
from enisle.cli.command import Command, Context, warn, write
from enisle.cli.copy import GO_DIRECTORY, GO_LINK, Place, landing, local_kind, place
from enisle.cli.flags import Options, UsageError, switch
from enisle.cli.human import bytes_text
from enisle.cli.unpacking import Source, unpack
from enisle.errors import Invalid, NotFound
from enisle.sdk.instances import path_stat

_READ_BYTES = 256 << 10


def copy(context: Context, options: Options, arguments: list[str]) -> None:
    """Copy files in or out."""
    source, destination = place(arguments[0]), place(arguments[1])
    if source.instance and destination.instance:
        raise UsageError("copying between instances is not supported")
    if source.instance:
        copied = _copy_out(context, options, source, destination.path)
        shown = os.path.abspath(destination.path)
    elif destination.instance:
        copied = _copy_in(context, options, source, destination)
        shown = arguments[1]
    else:
        raise UsageError("one of source and destination must be INSTANCE:PATH")
    if destination.path != "-" and not options.quiet and sys.stderr.isatty():
        warn(f"Copied {bytes_text(copied)} to {shown}")


def _copy_out(context: Context, options: Options, source: Place, destination: str) -> int:
    path = _followed(context, source) if options.follow_link else source.path
    with context.client.instances.open_archive(source.instance, path) as exchange:
        if destination == "-":
            with open_output(None) as output:
                write_all(exchange, output)
            return 0
        found = path_stat(exchange.reply_head())
        where = landing(
            destination,
            source=source,
            source_is_directory=bool(found["mode"] & GO_DIRECTORY),
            kind=local_kind(destination),
            must_be_directory=destination.endswith(("/", "/.")),
        )
        if local_kind(destination) == "file":
            real = os.path.realpath(destination)
            where = where._replace(directory=os.path.dirname(real), top=os.path.basename(real))
        return _unpack(exchange, where.directory, where.top, keep_owner=options.archive)


def _unpack(pieces: Iterable[bytes], directory: str, top: str, *, keep_owner: bool) -> int:
    """Unpack into a directory of ours, which the archive (a workload made it) cannot leave. Bytes of files."""
    owner = None if keep_owner else (os.geteuid(), os.getegid())
    return unpack(_Renamed(Source(iter(pieces)), os.fsencode(top)), directory, owner=owner, what="The copy")


class _Renamed(TarReader):
    """Gives the first component of all names another name."""

    def __init__(self, source: Source, top: bytes) -> None:
        super().__init__(source)
        self._top = top

    def __iter__(self) -> Iterator[Entry]:
        for entry in super().__iter__():
            entry.name = self._renamed(entry.name)
            if entry.kind is FileKind.HARD_LINK:
                entry.target = self._renamed(entry.target)
            yield entry

    def _renamed(self, name: bytes) -> bytes:
        rest = name.partition(b"/")[2]
        return self._top + b"/" + rest if rest else self._top


def _copy_in(context: Context, options: Options, source: Place, destination: Place) -> int:
    client = context.client
    target, kind = _target(context, destination)
    if source.path == "-":
        if kind != "directory":
            raise Invalid(f"destination {destination.instance}:{destination.path} must be a directory")
        client.instances.put(destination.instance, target, _stdin(), copy_uid_gid=options.archive)
        return 0
    path = os.path.realpath(source.path) if options.follow_link else os.path.abspath(source.path)
    try:
        status = os.stat(path) if source.must_be_directory else os.lstat(path)
    except OSError as error:
        raise Invalid(f"{source.path} cannot be copied: {error.strerror}.") from error
    is_directory = stat.S_ISDIR(status.st_mode)
    if source.must_be_directory and not is_directory:
        raise Invalid(f"{source.path} is not a directory")
    named = source._replace(path=os.path.abspath(source.path) + ("/." if source.contents_only else ""))
    where = landing(
        target,
        source=named,
        source_is_directory=is_directory,
        kind=kind,
        must_be_directory=destination.must_be_directory,
    )
    suffix = "/." if source.must_be_directory else ""
    body = _Packed(path + suffix, os.fsencode(where.top))
    client.instances.put(
        destination.instance, where.directory, body, no_overwrite_dir_non_dir=True, copy_uid_gid=options.archive
    )
    return body.bytes


def _target(context: Context, destination: Place) -> tuple[str, str]:
    """The path to copy to, links followed, and what is there."""
    path = destination.path if destination.path.startswith("/") else f"/{destination.path}"
    try:
        found = context.client.instances.stat(destination.instance, path)
        if found["mode"] & GO_LINK and found.get("linkTarget"):
            path = found["linkTarget"]
            found = context.client.instances.stat(destination.instance, path)
    except NotFound as error:
        if "no such container" in str(error).lower():
            raise
        # A HEAD has no body to say what was not found: ask for the instance itself.
        context.client.instances.get(destination.instance)
        return path, ""
    return path, "directory" if found["mode"] & GO_DIRECTORY else "file"


def _followed(context: Context, source: Place) -> str:
    found = context.client.instances.stat(source.instance, source.path)
    return (found.get("linkTarget") or source.path) if found["mode"] & GO_LINK else source.path


def _stdin() -> Iterator[bytes]:
    while data := os.read(0, _READ_BYTES):
        yield data


class _Packed:
    """A tar of a file or tree of ours, made by a thread while it is sent."""

    def __init__(self, path: str, top: bytes) -> None:
        self._path = path
        self._top = top
        self._failure: Exception | None = None
        self.bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        """Raises Invalid when something could not be read, so that the other side does not take half for the whole."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        thread = threading.Thread(target=self._pack, args=(writer,), daemon=True)
        thread.start()
        try:
            while data := os.read(reader, _READ_BYTES):
                self.bytes += len(data)
                yield data
        finally:
            os.close(reader)
        thread.join()
        if self._failure is not None:
            raise Invalid(f"{self._path} cannot be copied: {self._failure}.") from self._failure

    def _pack(self, writer: int) -> None:
        root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            pack(root, self._path, _Sink(writer), shown_as=self._top)
        except (OSError, ArchiveError) as error:
            self._failure = error
        finally:
            os.close(root)
            os.close(writer)


class _Sink:
    """A descriptor as a file to write to."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes | memoryview, /) -> None:
        """All of it."""
        write(bytes(data), descriptor=self._descriptor)


CP = Command(
    summary="Copy files between an instance and here",
    usage="[OPTIONS] INSTANCE:PATH PATH|-  or  PATH|- INSTANCE:PATH",
    run=copy,
    flags=(
        switch("archive", "a", "Keep owners"),
        switch("follow-link", "L", "Follow a symbolic link in the source"),
        switch("quiet", "q", "Say nothing"),
    ),
    least=2,
    most=2,
    completes="place",
    long="'-' stands for a tar on standard input or output. 'DIR/.' copies what is in a directory.",
    examples=("enisle cp web:/etc/nginx ./conf", "enisle cp ./site/. web:/srv", "tar c . | enisle cp - web:/srv"),
)
