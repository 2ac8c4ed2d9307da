"""The state of one host in one SQLite file.

One thread owns the one connection (SQLite 3.40 has a corruption bug with several writers). Transactions that wait for
it are committed together. WAL with synchronous=NORMAL: a commit survives the death of this process at once, and the
death of the machine after the next checkpoint, which follows within ``CHECKPOINT_AFTER_S`` of the last write.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from enisle.errors import EnisleError, Exhausted, Internal, Unavailable
from enisle.state.headroom import Headroom, keep_log
from enisle.state.sqlite_file import back_up, checksum, open_checked

CHECKPOINT_AFTER_S = 1.0
BACKUP_EVERY_S = 300.0
GROUP_LIMIT = 256
_RETRY_BUSY_MS = 5000

log = logging.getLogger("enisle.state")
Result = TypeVar("Result")


@dataclass(slots=True)
class _Job:
    """Work for the thread: ``writes`` jobs are grouped into one transaction."""

    run: Callable[[sqlite3.Connection], Any]
    writes: bool
    future: asyncio.Future[Any]


class SqliteStore:
    """Implements contracts.StateStore on a file.

    ``restored`` is True when the file was damaged or gone and the backup took its place: what was written since the
    backup is lost, so nothing that only looks orphaned may be deleted.
    """

    restored: bool

    def __init__(self, path: Path) -> None:
        """Opens the file (blocking, a few ms). Internal when it is damaged and there is no backup, Unavailable when it
        was written by a newer version."""
        self._path = path
        self._connection, self.restored = open_checked(path)
        self._headroom = Headroom(self._connection, path)
        self._headroom.restore()
        self._revision: int = self._connection.execute("SELECT max(revision) FROM entries").fetchone()[0] or 0
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="state", daemon=True)
        self._thread.start()

    async def get(self, key: str) -> tuple[bytes, int] | None:
        def run(connection: sqlite3.Connection) -> tuple[bytes, int] | None:
            row = connection.execute("SELECT value, revision FROM entries WHERE key = ?", (key,)).fetchone()
            return (bytes(row[0]), int(row[1])) if row else None

        return await self._submit(run, writes=False)

    async def scan(self, prefix: str) -> list[tuple[str, bytes, int]]:
        def run(connection: sqlite3.Connection) -> list[tuple[str, bytes, int]]:
            end = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else chr(0x10FFFF)
            rows = connection.execute(
                "SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key", (prefix, end)
            )
            return [(key, bytes(value), revision) for key, value, revision in rows]

        return await self._submit(run, writes=False)

    async def commit(
        self, puts: dict[str, bytes], deletes: Sequence[str] = (), expect: dict[str, int] | None = None
    ) -> bool:
        def run(connection: sqlite3.Connection) -> bool:
            for key, revision in (expect or {}).items():
                row = connection.execute("SELECT revision FROM entries WHERE key = ?", (key,)).fetchone()
                if (row[0] if row else 0) != revision:
                    return False
            self._revision += 1
            for key in deletes:
                connection.execute("DELETE FROM entries WHERE key = ?", (key,))
            for key, value in puts.items():
                connection.execute(
                    "INSERT INTO entries (key, value, revision, checksum) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO "
                    "UPDATE SET value = excluded.value, revision = excluded.revision, checksum = excluded.checksum",
                    (key, value, self._revision, checksum(key, value)),
                )
            return True

        return await self._submit(run, writes=True)

    async def close(self) -> None:
        """Finish what was asked for, write a backup, close the file. Idempotent."""
        if not self._closing:
            self._closing = True
            self._jobs.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def _submit(self, run: Callable[[sqlite3.Connection], Result], *, writes: bool) -> asyncio.Future[Result]:
        if self._closing:
            raise Unavailable("the state store is closed: enisled is stopping")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(run, writes, future))
        return future

    # --- in the thread ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        dirty = False
        backed_up_at = self._backup_age()
        while True:
            try:
                job = self._jobs.get(timeout=CHECKPOINT_AFTER_S if dirty else None)
            except queue.Empty:
                self._checkpoint()
                dirty = False
                if time.monotonic() - backed_up_at > BACKUP_EVERY_S:
                    back_up(self._connection, self._path)
                    backed_up_at = time.monotonic()
                continue
            jobs, ended = self._gather(job)
            if jobs:
                dirty = self._run(jobs) or dirty
            if ended:
                break
        self._checkpoint()
        back_up(self._connection, self._path)
        keep_log(self._path)
        self._connection.close()
        self._headroom.close()

    def _backup_age(self) -> float:
        """When the backup was made, on the monotonic clock."""
        try:
            age = time.time() - self._path.with_suffix(".backup").stat().st_mtime
        except OSError:
            return -BACKUP_EVERY_S
        return time.monotonic() - max(age, 0.0)

    def _gather(self, job: _Job | None) -> tuple[list[_Job], bool]:
        """This job and those already waiting behind it; whether the end was among them."""
        jobs: list[_Job] = []
        while job is not None:
            jobs.append(job)
            if len(jobs) == GROUP_LIMIT:
                return jobs, False
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, False
        return jobs, True

    def _run(self, jobs: list[_Job]) -> bool:
        """Run jobs in order as one transaction; whether something was written."""
        writes = any(job.writes for job in jobs)
        outcome = self._transaction(jobs, writes=writes)
        while isinstance(outcome, Exhausted) and self._headroom.grow():
            outcome = self._transaction(jobs, writes=writes)
        results = outcome if isinstance(outcome, list) else [outcome] * len(jobs)
        try:
            jobs[0].future.get_loop().call_soon_threadsafe(_resolve, jobs, results)
        except RuntimeError:
            log.debug("the event loop ended before it heard of %d committed transactions", len(jobs))
        return writes

    def _transaction(self, jobs: list[_Job], *, writes: bool) -> list[Any] | EnisleError:
        connection, revision = self._connection, self._revision
        try:
            if writes:
                connection.execute("BEGIN IMMEDIATE")
            results = [job.run(connection) for job in jobs]
            if writes:
                connection.execute("COMMIT")
            return results
        except sqlite3.Error as error:
            self._revision = revision
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return foreign_error(error, self._path)

    def _checkpoint(self) -> None:
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            log.warning("state store %s: writing the log back failed: %s", self._path, error)
        else:
            self._headroom.restore()


def _resolve(jobs: list[_Job], results: list[Any]) -> None:
    for job, result in zip(jobs, results, strict=True):
        if job.future.cancelled():
            continue
        if isinstance(result, EnisleError):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)


_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def foreign_error(error: sqlite3.Error, path: Path) -> EnisleError:
    """SQLite's error as ours (https://sqlite.org/rescode.html; extended codes end in the primary one)."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _FULL or (code == sqlite3.SQLITE_IOERR and _disk_is_full(path)):
        return Exhausted(f"state store {path}: {error}", remedy="Free some space on its disk.")
    if code in _DAMAGED:
        return Internal(f"state store {path} is damaged: {error}", remedy="Restart enisled to fall back to its backup.")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable(f"state store {path} is locked: {error}", remedy="Does another process have it open?")
    return Internal(f"state store {path}: {error}")


def _disk_is_full(path: Path) -> bool:
    try:
        facts = os.statvfs(path.parent)
    except OSError:
        return False
    return facts.f_bavail == 0 or (facts.f_files > 0 and facts.f_favail == 0)
