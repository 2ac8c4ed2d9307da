"""Unpacking a tar that others made into a directory of the user's, which it cannot leave."""

from __future__ import annotations

import os
from collections.abc import Iterator

from enisle.archive.apply import Policy, apply_entries
from enisle.archive.entry import ArchiveError
from enisle.archive.reader import TarReader
from enisle.errors import Invalid


class Source:
    """Pieces of bytes as a file to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        """At most that many bytes; b"" at the end."""
        data = self._rest or next(self._pieces, b"")
        self._rest = data[size:]
        return data[:size]


def unpack(reader: TarReader, directory: str, *, owner: tuple[int, int] | None, what: str) -> int:
    """Bytes of files. ``owner`` None: as the archive says. ``what`` begins messages ("The copy"). Raises Invalid."""
    try:
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Invalid(f"{what} needs a directory: {directory}: {error.strerror}.") from error
    try:
        return apply_entries(root, reader, Policy(owner=owner, root_attributes=False, keep_kind=True)).size
    except ArchiveError as error:
        raise Invalid(f"{what} failed: {error}.") from error
    except OSError as error:
        raise Invalid(f"{what} to {directory} failed: {error.strerror}.") from error
    finally:
        os.close(root)
