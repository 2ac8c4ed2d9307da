"""The compact log, rotation of either, and the journal."""

from __future__ import annotations

import gzip
import os
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.engine.logfile import parse
from enisle.launcher.journal import JournalLog, field
from enisle.launcher.log import JsonFileLog, LocalLog, compact_lines
from enisle.wire.plans import LogPlan

NOW = 1_700_000_000_000_000_001


@given(st.binary(min_size=1), st.sampled_from([1, 2]))
def test_compact_lines_give_back_every_byte(data: bytes, stream: int) -> None:
    lines = compact_lines(stream, data, NOW).split(b"\n")
    assert lines.pop() == b""
    records = [parse(line) for line in lines]
    assert b"".join(record.data for record in records if record) == data
    assert {(record.stream, record.time_ns) for record in records if record} == {(stream, NOW)}


@pytest.mark.parametrize("line", [b"", b"x", b"1", b"1zz data", b"9123 data", b"{", b"1 "])
def test_damaged_lines_are_passed_over(line: bytes) -> None:
    assert parse(line) is None or line == b"1 "


@pytest.mark.parametrize("kind", [LocalLog, JsonFileLog])
@pytest.mark.parametrize("compress", [False, True])
def test_rotation_loses_nothing_but_the_oldest(tmp_path: Path, kind: type[LocalLog], *, compress: bool) -> None:
    plan = LogPlan(path=str(tmp_path / "log"), max_bytes=2000, max_files=3, compress=compress)
    log = kind(plan)
    for number in range(1000):
        log.write(1, f"line {number}\r{'x' * 20}\n".encode())
    log.close()
    files = list(log.rotated())
    assert len(files) == 3
    assert [name.endswith(".gz") for name in files] == [compress, compress, False]
    records = []
    for name in files:
        assert os.path.getsize(name) <= 2100
        content = gzip.decompress(Path(name).read_bytes()) if name.endswith(".gz") else Path(name).read_bytes()
        records += [parse(line) for line in content.split(b"\n")[:-1]]
    numbers = [int(record.data.split(b"\r")[0].split()[1]) for record in records if record is not None]
    assert numbers == list(range(1000 - len(numbers), 1000))


def journal(path: Path) -> socket.socket:
    """A journal's socket, from which a test reads."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(path))
    listener.settimeout(10)
    return listener


def entry(data: bytes) -> dict[str, bytes]:
    found = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", data[:8])
            value, data = data[8 : 8 + size], data[9 + size :]
        found[name.decode()] = value
    return found


def test_entries_of_the_journal(tmp_path: Path) -> None:
    with journal(tmp_path / "socket") as listener:
        log = JournalLog(LogPlan(driver="journald", path=str(tmp_path / "socket"), extra={"CONTAINER_NAME": "web"}))
        log.write(1, b"one\ntwo\n")
        log.write(2, b"bad")
        log.close()
        found = [entry(listener.recv(65536)) for _number in range(3)]
    assert [(each["MESSAGE"], each["PRIORITY"], each["CONTAINER_NAME"]) for each in found] == [
        (b"one", b"6", b"web"),
        (b"two", b"6", b"web"),
        (b"bad", b"3", b"web"),
    ]
    assert found[2]["CONTAINER_PARTIAL_MESSAGE"] == b"true"
    assert log.error == ""


def test_a_value_of_several_lines() -> None:
    assert field("A", b"x=1") == b"A=x=1\n"
    assert field("A", b"x\ny") == b"A\n" + struct.pack("<Q", 3) + b"x\ny\n"


def test_a_journal_that_takes_nothing_costs_lines_only(tmp_path: Path) -> None:
    with journal(tmp_path / "socket"):
        log = JournalLog(LogPlan(driver="journald", path=str(tmp_path / "socket"), buffer_bytes=1 << 16))
        for _number in range(5000):
            log.write(1, b"x" * 1000 + b"\n")
        assert "too slowly" in log.error
    log.close()
    gone = JournalLog(LogPlan(driver="journald", path=str(tmp_path / "nowhere")))
    gone.write(1, b"x\n")
    gone.close()
    assert "No such file" in gone.error
