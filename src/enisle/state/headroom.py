"""Space that the SQLite store has before it needs it, so that a full disk keeps nobody from removing.

A commit needs the log to take its pages, and a checkpoint the database. The log is a file that is not cut and whose
space outlasts restarts; the database has free pages inside, and may not grow beyond them unless the disk has given the
space first: so what is in the log can always be written back into pages that are there, and the log begins anew. On
file systems that write to new places (btrfs, zfs) this helps less.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path

LOG_BYTES = 8 << 20
"""Twice of what SQLite lets the log have (1000 pages) before it writes it back, for what a group of commits adds."""
_LOG_MOST_BYTES = 64 << 20
_FREE_PAGES = 256
_FREE_PAGES_LEAST = 64
_MOST_PAGES = 4096
_HEADER_BYTES = 32

log = logging.getLogger("enisle.state")


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _kept(path: Path) -> Path:
    return path.with_suffix(".reserve")


def adopt_log(path: Path) -> None:
    """Before the file is opened: give it the log that was kept, without what it says.

    SQLite takes a log without a valid header for an empty one, and removes one beside an empty file.
    """
    kept = _kept(path)
    if not kept.exists() or not path.exists() or path.stat().st_size == 0:
        return
    if _log_of(path).exists():
        kept.unlink()
        return
    with kept.open("r+b") as file:
        file.write(bytes(_HEADER_BYTES))
    kept.rename(_log_of(path))


def keep_log(path: Path) -> None:
    """Before the file is closed, which unlinks the log: give it a second name."""
    try:
        _kept(path).unlink(missing_ok=True)
        os.link(_log_of(path), _kept(path))
    except OSError as error:
        log.warning("state store %s: the space of its log is not kept: %s", path, error)


class Headroom:
    """The space of one open store. To be used by the thread that owns the connection; does no write on its own."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._run = connection.execute
        self._path = path
        # Held until the connection is closed: closing any descriptor of the file drops SQLite's locks on it.
        self._database = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._confine()

    def close(self) -> None:
        """After the connection."""
        os.close(self._database)

    def grow(self) -> bool:
        """Let the database have more pages; False when the disk has no room for them."""
        try:
            self._run("DROP TABLE IF EXISTS padding")  # of one that was killed here
            self._add_pages()
        except (OSError, sqlite3.Error) as error:
            log.debug("state store %s: cannot grow: %s", self._path, error)
            return False
        finally:
            self._confine()
        return True

    def restore(self) -> None:
        """After a checkpoint: take again what is used up. Failing to is no error: removals do without."""
        try:
            self._extend_log()
        except OSError as error:
            log.debug("state store %s: its log cannot be extended: %s", self._path, error)
        if self._number("freelist_count") < _FREE_PAGES_LEAST:
            self.grow()

    def _add_pages(self) -> None:
        """Pages of zeros, written and then given back to the database: their space is claimed first."""
        size, count, free = (self._number(pragma) for pragma in ("page_size", "page_count", "freelist_count"))
        more = max(_FREE_PAGES, min(count, _MOST_PAGES))
        os.posix_fallocate(self._database, count * size, (more + 8) * size)
        self._run(f"PRAGMA max_page_count = {count + more + 8}")
        self._run("CREATE TABLE padding (zeros BLOB)")
        self._run(
            "INSERT INTO padding VALUES (zeroblob(?))", ((size - 4) * (free + more),)
        )  # free ones first; 4 bytes link them
        self._run("DROP TABLE padding")  # in a transaction of its own: pages that one makes and frees are not written
        self._run("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # cuts the file to its pages

    def _confine(self) -> None:
        self._run(f"PRAGMA max_page_count = {self._number('page_count')}")

    def _number(self, pragma: str) -> int:
        return int(self._run(f"PRAGMA {pragma}").fetchone()[0])

    def _extend_log(self) -> None:
        file = _log_of(self._path)
        if file.stat().st_size > _LOG_MOST_BYTES:
            self._run("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if file.stat().st_blocks * 512 >= LOG_BYTES:
            return
        fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.posix_fallocate(fd, 0, LOG_BYTES)
        finally:
            os.close(fd)
