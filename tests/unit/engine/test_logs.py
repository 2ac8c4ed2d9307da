"""Reading json-file logs: tails, rotation, following."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from pathlib import Path
from typing import Any

from enisle.engine.logfile import Segment, parse, parse_time
from enisle.engine.logs import read_log
from enisle.launcher.log import JsonFileLog
from enisle.wire.plans import LogPlan
from tests.unit.engine.fakes import watch_by_polling

BASE_NS = 1_700_000_000 * 10**9


def line(number: int, stream: str = "stdout", text: str | None = None) -> str:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(1_700_000_000 + number))
    log = f"line {number}\n" if text is None else text
    return json.dumps({"log": log, "stream": stream, "time": f"{stamp}.000000123Z"}) + "\n"


async def read(path: Path, **options: Any) -> list[str]:
    return [record.data.decode().rstrip() async for record in read_log(path, **options)]


def numbers(*values: int) -> list[str]:
    return [f"line {value}" for value in values]


def test_times_keep_their_nanoseconds() -> None:
    assert parse_time("2023-11-14T22:13:20.000000123Z") == BASE_NS + 123
    assert parse_time("2023-11-14T22:13:20Z") == BASE_NS
    assert parse_time("2023-11-14T22:13:20.5Z") == BASE_NS + 500_000_000


def test_damaged_lines_are_none() -> None:
    for damaged in (b"", b"{", b'{"log":1}', b'{"log":"x","stream":"std","time":"2023-11-14T22:13:20Z"}', b"\0\0\0"):
        assert parse(damaged) is None


async def test_tail_across_rotated_and_packed_files(tmp_path: Path) -> None:
    path = tmp_path / "x-json.log"
    with gzip.open(tmp_path / "x-json.log.2.gz", "wt") as packed:
        packed.write(line(0) + line(1))
    (tmp_path / "x-json.log.1").write_text(line(2) + line(3))
    path.write_text(line(4) + line(5))
    assert await read(path) == numbers(0, 1, 2, 3, 4, 5)
    for count in range(8):
        assert await read(path, tail=count) == numbers(*range(max(0, 6 - count), 6))


async def test_tail_of_a_long_file_and_its_last_unfinished_line(tmp_path: Path) -> None:
    path = tmp_path / "x-json.log"
    path.write_text("".join(line(number) for number in range(5000)) + '{"log":"half')
    assert await read(path, tail=3) == numbers(4997, 4998, 4999)
    assert len(await read(path)) == 5000


async def test_streams_since_and_until(tmp_path: Path) -> None:
    path = tmp_path / "x-json.log"
    path.write_text(line(0) + line(1, "stderr") + line(2) + line(3))
    assert await read(path, stderr=False) == numbers(0, 2, 3)
    assert await read(path, stdout=False) == numbers(1)
    assert await read(path, since_ns=BASE_NS + 10**9, until_ns=BASE_NS + 2 * 10**9 + 500) == numbers(1, 2)


async def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert await read(tmp_path / "none-json.log") == []
    assert await read(tmp_path / "none-json.log", tail=5) == []


async def test_follow_over_rotations_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x-json.log"
    path.write_text(line(0))
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    got: list[str] = []

    async def follow() -> None:
        async for record in read_log(path, tail=1, changes=watch_by_polling(tmp_path), ended=end):
            got.append(record.data.decode().rstrip())

    async def reached(count: int) -> None:
        while len(got) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.002)

    task = asyncio.create_task(follow())
    await reached(1)
    half = line(1)
    with path.open("a") as file:
        file.write(half[:10])
    await asyncio.sleep(0.02)
    with path.open("a") as file:
        file.write(half[10:] + line(2))
    await reached(3)
    path.rename(tmp_path / "x-json.log.1")
    with (tmp_path / "x-json.log.1").open("a") as file:
        file.write(line(3))
    path.write_text(line(4))
    await reached(5)
    with path.open("a") as file:
        file.write(line(5))
    end.set_result(None)
    await asyncio.wait_for(task, 5)
    assert got == numbers(0, 1, 2, 3, 4, 5)


async def test_a_log_of_one_file_that_is_emptied_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "x-json.log"
    path.write_text(line(0) + line(1))
    with Segment(path) as segment:
        assert segment.lines() is not None and segment.lines() is None
        path.write_text(line(2))
        assert segment.lines() == []
        assert [parse(each).data for each in segment.lines() or [] if parse(each)] == [b"line 2\n"]


async def test_follow_ends_with_what_was_written_last(tmp_path: Path) -> None:
    path = tmp_path / "x-json.log"
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def write_and_end() -> None:
        path.write_text(line(0) + line(1))
        end.set_result(None)

    task = asyncio.create_task(write_and_end())
    records = [record async for record in read_log(path, changes=watch_by_polling(tmp_path), ended=end)]
    await task
    assert [record.data for record in records] == [b"line 0\n", b"line 1\n"]


async def test_partial_lines_keep_no_newline(tmp_path: Path) -> None:
    path = tmp_path / "x-json.log"
    path.write_text(line(0, text="a" * 16384) + line(1, text="b\n"))
    records = [record.data async for record in read_log(path)]
    assert records == [b"a" * 16384, b"b\n"]


async def test_following_while_files_are_packed_behind_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "x-json.log"
    log = JsonFileLog(LogPlan(path=str(path), max_bytes=300, max_files=4, compress=True))
    log.write(1, b"0\n")
    seen: list[int] = []
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async for record in read_log(path, changes=watch_by_polling(tmp_path), ended=ended):
        seen.append(int(record.data))
        if seen[-1] == 199 and not ended.done():
            ended.set_result(None)
        elif seen[-1] % 5 == 0:
            for number in range(seen[-1] + 1, seen[-1] + 6):  # two files further: ours is packed by then
                if number < 200:
                    log.write(1, b"%d\n" % number)
    log.close()
    assert seen == list(range(200))
