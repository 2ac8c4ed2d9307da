"""Log lines, as Docker's readers want them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.launcher.log import MAX_PARTIAL_BYTES, JsonFileLog, complete_characters, json_lines, timestamp
from enisle.wire.plans import LogPlan


def records(path: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@given(st.binary(min_size=1))
def test_lines_say_what_was_written(data: bytes) -> None:
    text = b"".join(json_lines(1, data, "", 0).splitlines(keepends=True)).decode()
    found = [json.loads(line) for line in text.split("\n")[:-1]]
    assert "".join(record["log"] for record in found) == data.decode("utf-8", "replace")
    assert all(record["log"].count("\n") <= 1 for record in found)
    assert {record["stream"] for record in found} == {"stdout"}


def test_time_stamps() -> None:
    assert timestamp(1_700_000_000_000_000_001) == "2023-11-14T22:13:20.000000001Z"


def test_partial_lines_wait(tmp_path: Path) -> None:
    plan = LogPlan(path=str(tmp_path / "log"), extra={"tag": 'a"b'})
    log = JsonFileLog(plan)
    log.write(1, b"one\ntw")
    log.write(2, b"err\n")
    assert [record["log"] for record in records(plan.path)] == ["one\n", "err\n"]
    assert log.pending(1) == b"tw"
    log.write(1, b"o\n")
    log.write(1, b"end")
    log.close()
    assert [record["log"] for record in records(plan.path)] == ["one\n", "err\n", "two\n", "end"]
    assert records(plan.path)[0]["attrs"] == {"tag": 'a"b'}


def test_endless_lines_are_cut_between_characters(tmp_path: Path) -> None:
    plan = LogPlan(path=str(tmp_path / "log"))
    log = JsonFileLog(plan)
    data = ("x" + "ä" * 40_000).encode()
    for start in range(0, len(data), 1000):
        log.write(1, data[start : start + 1000])
    log.close()
    found = [record["log"] for record in records(plan.path)]
    assert "".join(found) == data.decode()
    assert all(len(part.encode()) <= MAX_PARTIAL_BYTES for part in found)


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (b"abc", 3),
        ("aä".encode(), 3),
        (b"a\xc3", 1),
        (b"\xe2\x82", 0),
        (b"a\xf0\x9f\x98", 1),
        (b"\x80\x80\x80\x80", 4),
        (b"", 0),
    ],
)
def test_complete_characters(data: bytes, length: int) -> None:
    assert complete_characters(data) == length


def test_rotation_keeps_whole_lines(tmp_path: Path) -> None:
    plan = LogPlan(path=str(tmp_path / "log"), max_bytes=500, max_files=3)
    log = JsonFileLog(plan)
    for number in range(100):
        log.write(1, f"line {number}\n".encode())
    log.close()
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2"]
    found = [record["log"] for name in ("log.2", "log.1", "log") for record in records(str(tmp_path / name))]
    assert found == [f"line {number}\n" for number in range(100 - len(found), 100)]


def test_one_file_starts_over(tmp_path: Path) -> None:
    plan = LogPlan(path=str(tmp_path / "log"), max_bytes=300, max_files=1)
    log = JsonFileLog(plan)
    log.write(1, b"".join(b"line %d\n" % number for number in range(50)))
    log.close()
    assert os.listdir(tmp_path) == ["log"]
    assert records(plan.path)[-1]["log"] == "line 49\n"


def test_a_full_disk_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="symbolic links"):
        JsonFileLog(LogPlan(path=str(path)))
    log = JsonFileLog(LogPlan(path=str(tmp_path / "other")))
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._fd)
    log.write(1, b"lost\n")
    assert "No space left on device" in log.error
    log.close()
