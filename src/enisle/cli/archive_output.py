"""Where tars go (a file or standard output) and come from (a file or standard input)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from enisle.cli.command import write
from enisle.errors import Invalid

_READ_BYTES = 256 << 10


@contextmanager
def open_output(path: str | None) -> Iterator[int]:
    """A descriptor to write to. A file appears under its name only when all of it was written."""
    if not path or path == "-":
        if sys.stdout.isatty():
            raise Invalid("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        yield 1
        return
    if os.path.exists(path) and not os.path.isfile(path):
        # A device or a pipe (/dev/null, a FIFO) cannot be replaced.
        descriptor = _open(path, os.O_WRONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
        return
    temporary = f"{path}.part-{os.getpid()}"
    descriptor = _open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, meant=path)
    try:
        yield descriptor
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(descriptor)


def _open(path: str, flags: int, *, meant: str = "") -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Invalid(f"{meant or path} cannot be written: {error.strerror}.") from error


def write_all(pieces: Iterable[bytes], descriptor: int) -> None:
    """All pieces to a descriptor. Raises Invalid when the disk is full."""
    try:
        for piece in pieces:
            write(piece, descriptor=descriptor)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Invalid(f"The output cannot be written: {error.strerror}.") from error


@contextmanager
def open_input(path: str | None) -> Iterator[Iterator[bytes]]:
    """The bytes of a file, or of standard input."""
    if not path or path == "-":
        if sys.stdin.isatty():
            raise Invalid("requested load from stdin, but stdin is a terminal", remedy="Use -i FILE or redirect.")
        yield _pieces(0)
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}.") from error
    try:
        yield _pieces(descriptor)
    finally:
        os.close(descriptor)


def _pieces(descriptor: int) -> Iterator[bytes]:
    while data := os.read(descriptor, _READ_BYTES):
        yield data
