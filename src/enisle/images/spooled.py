"""An image archive on its way in: its members as files of the ingest directory, found by name."""

from __future__ import annotations

import posixpath
from pathlib import Path

from enisle.archive.entry import ArchiveError, Entry, FileKind, components
from enisle.archive.reader import ByteSource, TarReader
from enisle.errors import Invalid
from enisle.formats.json_document import SIZE_LIMIT_BYTES
from enisle.images.compression import BROKEN, decompressed, peek
from enisle.images.content import ContentStore, storage_errors

_MEMBERS_LIMIT = 20_000
_LINKS_LIMIT = 8


class Spooled:
    """The members of one archive. Use as a context manager: what was not taken is removed at the end."""

    def __init__(self, content: ContentStore) -> None:
        self._content = content
        self._files: dict[str, Path] = {}
        self._links: dict[str, str] = {}

    def __enter__(self) -> Spooled:
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._files.values():
            path.unlink(missing_ok=True)

    def fill(self, source: ByteSource) -> None:
        """Read the whole archive, compressed or not. For a thread. Invalid for what is no archive."""
        try:
            kind, whole = peek(source)
            reader = TarReader(decompressed(kind, whole))
            for entry in reader:
                self._take(entry, reader)
            reader.drain()
        except ArchiveError as error:
            raise Invalid(f"the image archive cannot be read: {error}") from error
        except OSError as error:
            if error.errno is not None:  # the sender's, not the archive's
                raise
            raise Invalid(f"the image archive is damaged: {error}") from error
        except BROKEN as error:
            raise Invalid(f"the image archive is damaged: {error}") from error

    def _take(self, entry: Entry, reader: TarReader) -> None:
        name = "/".join(part.decode("utf-8", "surrogateescape") for part in components(entry.name))
        if len(self._files) + len(self._links) >= _MEMBERS_LIMIT:
            raise Invalid(f"the image archive holds more than {_MEMBERS_LIMIT} files")
        target = entry.target.decode("utf-8", "surrogateescape")
        if entry.kind is FileKind.SYMBOLIC_LINK:
            self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        elif entry.kind is FileKind.HARD_LINK:
            self._links[name] = posixpath.normpath(target)
        elif entry.kind is FileKind.REGULAR and entry.sparse is None:
            path = self._files.setdefault(name, self._content.temporary())
            with path.open("wb") as file:
                for _, piece in reader.data():
                    with storage_errors():
                        file.write(piece)

    def find(self, name: str) -> Path | None:
        """The file under a name of the archive, links followed; None if there is none (or it was taken)."""
        name = posixpath.normpath(name)
        for _ in range(_LINKS_LIMIT):
            if name not in self._links:
                break
            name = self._links[name]
        path = self._files.get(name)
        return path if path is not None and path.exists() else None

    def get(self, name: str) -> Path:
        """As :func:`find`; Invalid when there is none."""
        path = self.find(name)
        if path is None:
            raise Invalid(f"the image archive is not whole: {name[:200]} is missing")
        return path

    def read(self, name: str) -> bytes:
        """A document of the archive."""
        path = self.get(name)
        if path.stat().st_size > SIZE_LIMIT_BYTES:
            raise Invalid(f"the image archive's {name[:200]} is over the limit of {SIZE_LIMIT_BYTES} bytes")
        return path.read_bytes()
