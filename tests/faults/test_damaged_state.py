"""The state file is damaged or lost between two lives of enisled (F14): what ran still runs, and nothing is forgotten
without a word."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.counts import count, timeout_s
from tests.daemon import Daemon, dispose, image_archive, new_daemon
from tests.faults.test_daemon_dies import pid_of

_SHOWN = "{{.Names}} {{.Image}} {{.State}}"


@pytest.fixture
def engine() -> Iterator[Daemon]:
    """One that has something to lose, and has been stopped once, so that there is a backup."""
    made = new_daemon(prefix="d")
    made.start()
    made.docker("load", "-q", "-i", str(image_archive("busybox")))
    made.docker("network", "create", "net")
    made.docker("volume", "create", "vol")
    made.docker("run", "-d", "--name", "runs", "--network", "net", "-v", "vol:/v", "busybox", "sleep", "100000")
    made.docker("run", "--name", "ended", "busybox", "sh", "-c", "echo kept > /file; exit 4", check=False)
    made.stop()
    yield made
    dispose(made)


def state(daemon: Daemon) -> list[object]:
    """All that must not be lost."""
    listed = sorted(daemon.docker("ps", "-a", "--format", _SHOWN).stdout.splitlines())
    networks = sorted(daemon.docker("network", "ls", "--format", "{{.Name}}").stdout.split())
    return [listed, networks, daemon.docker("volume", "ls", "-q").stdout, pid_of(daemon, "runs")]


def flip(path: Path, seed: int) -> None:
    """Change 1 to 64 bytes somewhere."""
    chance = random.Random(seed)
    data = bytearray(path.read_bytes())
    at = chance.randrange(len(data))
    for index in range(at, min(at + chance.randint(1, 64), len(data))):
        data[index] ^= chance.randint(1, 255)
    path.write_bytes(data)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def scribble(path: Path) -> None:
    path.write_bytes(b"this is no database\n" * 1000)


@pytest.mark.parametrize("damage", [halve, empty, scribble, Path.unlink])
def test_damage_is_noticed_and_made_good(engine: Daemon, damage: Callable[[Path], None]) -> None:
    engine.start()
    before = state(engine)
    engine.stop()
    damage(engine.data_root / "state.db")
    engine.start()
    assert state(engine) == before
    assert "backup" in engine.log
    assert engine.docker("exec", "runs", "echo", "alive").stdout == "alive\n"
    assert engine.docker("start", "-a", "ended", check=False).returncode == 4
    engine.docker("rm", "ended")
    assert engine.docker("run", "--rm", "--network", "net", "busybox", "echo", "works").stdout == "works\n"


@pytest.mark.timeout(timeout_s(300, 1200))
def test_flipped_bytes_are_noticed_wherever_they_are(engine: Daemon) -> None:
    engine.start()
    before = state(engine)
    for seed in range(count(6, 100)):
        engine.stop()
        flip(engine.data_root / "state.db", seed)
        engine.start()
        assert state(engine) == before, seed
    assert engine.docker("exec", "runs", "echo", "alive").stdout == "alive\n"


def test_what_was_made_since_the_backup_is_taken_back(engine: Daemon) -> None:
    """The database goes with a kill: only the copies of records beside the instances know of what is new."""
    engine.start()
    engine.docker("run", "-d", "--name", "new", "busybox", "sleep", "100000")
    pid = pid_of(engine, "new")
    engine.kill()
    engine.start()  # which writes the copies that are missing
    engine.kill()
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (engine.data_root / name).unlink(missing_ok=True)
    engine.start()
    assert pid_of(engine, "new") == pid
    assert engine.docker("exec", "new", "echo", "alive").stdout == "alive\n"
    assert "taken back" in engine.log


def test_a_newer_schema_and_a_loss_without_backup_are_refused(engine: Daemon) -> None:
    path = engine.data_root / "state.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    refused(engine, "was written by a newer Enisle")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    whole, backup = path.read_bytes(), engine.data_root / "state.backup"
    aside = backup.rename(engine.root / "backup")
    scribble(path)
    refused(engine, "is damaged")
    path.write_bytes(whole)
    aside.rename(backup)
    engine.start()
    assert "runs" in engine.docker("ps", "--format", "{{.Names}}").stdout


def refused(daemon: Daemon, words: str) -> None:
    """enisled ends at once, with one line that says why."""
    daemon.launch()
    assert daemon.process is not None
    assert daemon.process.wait(20) != 0
    daemon.process = None
    assert words in daemon.log.strip().splitlines()[-1]
    assert "Traceback" not in daemon.log
