"""The file below the SQLite store: its schema, its check and its backup."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
import zlib
from pathlib import Path

from enisle.errors import Internal, Unavailable
from enisle.state.headroom import adopt_log

SCHEMA_VERSION = 2
_CACHE_KIB = 2048

log = logging.getLogger("enisle.state")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL,
    revision INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) WITHOUT ROWID
"""


class _Damaged(Exception):
    """The file is there, but is no sound database."""


def open_checked(path: Path) -> tuple[sqlite3.Connection, bool]:
    """A connection to the sound file; whether it had to be taken from the backup.

    A missing or empty file beside a backup counts as damaged: a store that was in use never starts empty.
    """
    backup = path.with_suffix(".backup")
    missing = not path.exists() or path.stat().st_size == 0
    if missing and not backup.exists():
        return _open(path), False
    try:
        if missing:
            raise _Damaged("the file is missing or empty")
        return _open(path), False
    except _Damaged as damage:
        if not backup.exists():
            raise Internal(
                f"state store {path} is damaged ({damage}) and has no backup",
                remedy="Restore it from a backup of yours, or move it away to begin with an empty one.",
            ) from damage
        log.error("state store %s is damaged (%s): going back to its backup of %s", path, damage, _age(backup))
        _replace(path, backup)
        return _open(path), True


def _open(path: Path) -> sqlite3.Connection:
    adopt_log(path)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        # First of all: so the index of the log is in our memory. In a file, a full disk would end us by SIGBUS.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA journal_size_limit = -1")  # the log keeps its space
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise _Damaged(verdict)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise Unavailable(
                f"state store {path} was written by a newer Enisle (schema {version}, this one knows {SCHEMA_VERSION})",
                remedy="Install that version again.",
            )
        if version < SCHEMA_VERSION:
            _upgrade(connection, version)
        _check_values(connection)
    except sqlite3.OperationalError as error:
        connection.close()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:  # text that is no UTF-8 has no code
            raise Unavailable(f"state store {path} is locked", remedy="Another process has it open.") from error
        raise _Damaged(str(error)) from error
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _Damaged(str(error)) from error
    except BaseException:
        connection.close()
        raise
    os.chmod(path, 0o600)
    return connection


def _upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Bring the schema to ours, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    if version == 1:  # without checksums
        connection.execute("ALTER TABLE entries ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0")
        for key, value in connection.execute("SELECT key, value FROM entries").fetchall():
            connection.execute("UPDATE entries SET checksum = ? WHERE key = ?", (checksum(key, value), key))
    connection.execute(_SCHEMA)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def checksum(key: str, value: bytes) -> int:
    """SQLite has none: a flipped bit in a value would go unnoticed, and change what an instance is."""
    return zlib.crc32(value, zlib.crc32(key.encode()))


def _check_values(connection: sqlite3.Connection) -> None:
    for key, value, expected in connection.execute("SELECT key, value, checksum FROM entries"):
        if not isinstance(key, str) or not isinstance(value, bytes) or checksum(key, value) != expected:
            raise _Damaged(f"the entry {key} does not have its checksum")


def _replace(path: Path, backup: Path) -> None:
    """Put a copy of the backup where the damaged file was, which is kept beside it for whoever wants to look."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", "-wal", "-shm"):
        old = path.with_name(path.name + suffix)
        if old.exists():
            old.rename(path.with_name(f"{path.name}{suffix}.damaged-{stamp}"))
    copy = path.with_suffix(".restoring")
    copy.write_bytes(backup.read_bytes())
    copy.rename(path)


def back_up(connection: sqlite3.Connection, path: Path) -> None:
    """Write a whole, compact copy beside the file; the old backup stays until the new one is complete."""
    backup, fresh = path.with_suffix(".backup"), path.with_suffix(".backup-new")
    try:
        fresh.unlink(missing_ok=True)
        connection.execute("VACUUM INTO ?", (str(fresh),))
        os.chmod(fresh, 0o600)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.rename(backup)
    except (sqlite3.Error, OSError) as error:
        fresh.unlink(missing_ok=True)
        log.warning("state store %s: no backup could be written: %s", path, error)


def _age(path: Path) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(path.stat().st_mtime))
