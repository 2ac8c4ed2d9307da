"""What only the file-backed store must withstand: death, damage, full disks, other versions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from enisle.errors import Internal, Kind, Unavailable
from enisle.state.headroom import LOG_BYTES
from enisle.state.sqlite import SqliteStore, foreign_error
from enisle.state.sqlite_file import SCHEMA_VERSION


async def fill(path: Path, *, count: int = 200) -> None:
    store = SqliteStore(path)
    await asyncio.gather(*(store.commit({f"instances/{n:04}": b"x" * 500}) for n in range(count)))
    await store.close()


async def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await fill(path)
    store = SqliteStore(path)
    assert len(await store.scan("instances/")) == 200
    assert not store.restored
    entry = await store.get("instances/0000")
    await store.commit({"instances/0000": b"new"})
    again = await store.get("instances/0000")
    assert entry is not None and again is not None and again[1] > entry[1]
    await store.close()
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.close()
    await store.close()
    with pytest.raises(Unavailable):
        await store.commit({"a": b""})


def test_commits_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    program = (
        "import asyncio, sys, pathlib\n"
        "from enisle.state.sqlite import SqliteStore\n"
        "async def main():\n"
        "    store = SqliteStore(pathlib.Path(sys.argv[1]))\n"
        "    for n in range(100000):\n"
        "        await store.commit({f'n/{n:06}': b'x'})\n"
        "        print(n, flush=True)\n"
        "asyncio.run(main())\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = -1
    for line in child.stdout:
        told = int(line)
        if told == 40:
            child.send_signal(signal.SIGKILL)
    child.wait()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone()[0] >= told + 1 > 40


@pytest.mark.parametrize("seed", range(12))
async def test_a_damaged_file_is_never_taken_for_a_sound_one(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "state.db"
    await fill(path)
    data = bytearray(path.read_bytes())
    chance = random.Random(seed)
    start = chance.randrange(0, len(data) - 4096)
    data[start : start + 4096] = chance.randbytes(4096)
    path.write_bytes(data)
    store = SqliteStore(path)
    rows = await store.scan("instances/")
    await store.close()
    assert store.restored or len(rows) == 200
    if store.restored:
        assert {len(value) for _, value, _ in rows} == {500} and len(rows) == 200
        assert list(tmp_path.glob("state.db.damaged-*"))


@pytest.mark.parametrize("content", [None, b""])
async def test_a_lost_file_comes_back_from_the_backup(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "state.db"
    await fill(path)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    store = SqliteStore(path)
    assert store.restored and len(await store.scan("instances/")) == 200
    await store.close()


async def test_damage_without_a_backup_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await fill(path)
    path.with_suffix(".backup").unlink()
    path.write_bytes(b"nothing of a database" * 1000)
    with pytest.raises(Internal, match="no backup"):
        SqliteStore(path)


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await fill(path)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(Unavailable, match="newer"):
        SqliteStore(path)


def full() -> sqlite3.Error:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, Kind.EXHAUSTED),
        (sqlite3.SQLITE_CORRUPT, Kind.INTERNAL),
        (sqlite3.SQLITE_NOTADB, Kind.INTERNAL),
        (sqlite3.SQLITE_BUSY, Kind.UNAVAILABLE),
        (sqlite3.SQLITE_LOCKED, Kind.UNAVAILABLE),
        (sqlite3.SQLITE_IOERR, Kind.INTERNAL),
        (sqlite3.SQLITE_READONLY, Kind.INTERNAL),
    ],
)
def test_every_known_error_has_a_kind(code: int, kind: Kind, tmp_path: Path) -> None:
    error = sqlite3.OperationalError("why")
    error.sqlite_errorcode = code
    assert foreign_error(error, tmp_path / "state.db").kind is kind


async def test_the_space_of_the_log_outlasts_a_restart(tmp_path: Path) -> None:
    path, log = tmp_path / "state.db", tmp_path / "state.db-wal"
    await fill(path)
    store = SqliteStore(path)
    place = log.stat().st_ino
    assert log.stat().st_blocks * 512 >= LOG_BYTES
    await store.commit({"instances/0000": b"new"})
    await store.close()
    store = SqliteStore(path)
    assert log.stat().st_ino == place and log.stat().st_blocks * 512 >= LOG_BYTES
    entry = await store.get("instances/0000")
    assert entry is not None and entry[0] == b"new"
    await store.close()
    assert not log.exists()  # whoever opens the file meanwhile finds no log of ours


async def test_a_database_grows_to_what_it_needs(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    large = os.urandom(3 << 20)
    await store.commit({"large": large})
    await store.commit({f"instances/{n:04}": b"x" * 3000 for n in range(200)})
    entry = await store.get("large")
    assert entry is not None and entry[0] == large and len(await store.scan("")) == 201
    await store.close()
