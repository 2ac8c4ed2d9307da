"""Reading back from the journal."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from enisle.engine.journalread import arguments_of, read_journal, record_of
from enisle.errors import NotSupported

ENTRIES = [
    '{"MESSAGE":"out","PRIORITY":"6","__REALTIME_TIMESTAMP":"1700000000000001"}',
    '{"MESSAGE":[98,255],"PRIORITY":"3","__REALTIME_TIMESTAMP":"1700000000000002"}',
    "no json",
    '{"MESSAGE":"part","PRIORITY":"6","__REALTIME_TIMESTAMP":"3","CONTAINER_PARTIAL_MESSAGE":"true"}',
]


def program(directory: Path, *, before: str = "", after: str = "") -> None:
    """A journalctl that prints what it was called with, and the entries."""
    lines = "".join(f"echo '{line}'\n" for line in ENTRIES)
    path = directory / "journalctl"
    path.write_text(f'#!/bin/sh\necho "$@" > {directory}/called\n{before}\n{lines}{after}\n')
    path.chmod(0o755)


async def test_what_journalctl_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = [record async for record in read_journal("abc", since_ns=1_500_000_000, tail=7)]
    assert [(record.stream, record.data) for record in found] == [(1, b"out\n"), (2, b"b\xff\n"), (1, b"part")]
    assert (tmp_path / "called").read_text().split() == arguments_of(
        "abc", since_ns=1_500_000_000, until_ns=0, tail=7, follow=False
    )
    errors = [record.data async for record in read_journal("abc", stdout=False)]
    assert errors == [b"b\xff\n"]


async def test_following_ends_with_the_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, before='case "$*" in *--follow*) ;; *) exit;; esac', after="exec sleep 100")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    found = []
    async for record in read_journal("abc", ended=ended):
        found.append(record)
        if len(found) == 3:
            ended.set_result(None)
    assert len(found) == 3


async def test_what_was_not_followed_in_time_is_read_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journalctl"
    first, last = ENTRIES[0].replace("}", ',"__CURSOR":"s=1;i=2"}'), ENTRIES[0].replace("out", "last")
    follows = f"*--follow*) echo '{first}'; exec sleep 100;;"
    path.write_text(f"#!/bin/sh\ncase \"$*\" in {follows} *'--after-cursor=s=1;i=2') echo '{last}';; esac\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ended.set_result(None)
    found = [record.data async for record in read_journal("abc", ended=ended)]
    assert found == [b"out\n", b"last\n"]


async def test_no_journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotSupported, match="does not support reading"):
        [record async for record in read_journal("abc")]


def test_arguments() -> None:
    arguments = arguments_of("abc", since_ns=1_000_000_001_000, until_ns=2, tail=None, follow=True)
    assert arguments[-5:-1] == ["--lines=all", "--since=@1000.000001", "--until=@0.000000", "--follow"]
    assert arguments[-1] == "CONTAINER_ID_FULL=abc"
    assert record_of({}) is None


def test_what_was_asked_for_is_told_from_what_the_journal_adds() -> None:
    entry = {"MESSAGE": "out", "PRIORITY": "6", "__REALTIME_TIMESTAMP": "3"}
    fields = {"_PID": "1", "CONTAINER_TAG": "x", "COLOUR": "red", "SYSLOG_TIMESTAMP": "2026-01-02T03:04:05.000000007Z"}
    record = record_of({**entry, **fields})
    assert record is not None and record.attributes == {"COLOUR": "red"}
    assert record.time_ns % 1_000_000_000 == 7
    odd = record_of({"MESSAGE": "out", "__REALTIME_TIMESTAMP": "3", "SYSLOG_TIMESTAMP": "yesterday"})
    assert odd is not None and odd.time_ns == 3000
