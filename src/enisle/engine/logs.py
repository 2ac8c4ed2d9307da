"""Reading an instance's log, to its end or on and on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

from enisle.engine.logfile import LogRecord, Segment, numbered, parse, place_of, segments, tail_start

__all__ = ["LogRecord", "read_log"]

_ATTEMPTS = 1000


async def read_log(
    path: Path,
    *,
    stdout: bool = True,
    stderr: bool = True,
    since_ns: int = 0,
    until_ns: int = 0,
    tail: int | None = None,
    changes: AbstractContextManager[asyncio.Event] | None = None,
    ended: Awaitable[object] | None = None,
) -> AsyncIterator[LogRecord]:
    """The records, oldest first. With ``changes`` and ``ended`` it goes on until ``ended`` is done."""
    wanted = {stream for stream, asked in ((1, stdout), (2, stderr)) if asked}
    with ExitStack() as stack:
        event = stack.enter_context(changes) if changes is not None else None
        end = asyncio.ensure_future(ended) if ended is not None else None
        if end is not None:
            stack.callback(end.cancel)
        async for line in _lines(path, tail, event, end):
            record = parse(line)
            if record is None or record.time_ns < since_ns:
                continue
            if until_ns and record.time_ns > until_ns:
                return
            if record.stream in wanted:
                yield record


async def _lines(
    path: Path, tail: int | None, event: asyncio.Event | None, end: asyncio.Future[object] | None
) -> AsyncIterator[bytes]:
    """All lines from the tail on; after the newest file's end, those to come.

    Who does not follow gets what is there now: an instance may print faster than anybody reads.
    """
    offset, first = 0, None
    stop = _size_now(path) if event is None and tail is None else None
    left = tail if event is None else None
    paths = segments(path)
    if tail is not None:
        first, offset = tail_start(paths, tail)
    position: Path | None = paths[0]
    last_try = False
    while position is not None:
        try:
            segment, first = first or Segment(position), None
        except FileNotFoundError:
            if last_try:
                return
            last_try = not await _wait(event, end)
            position = path
            continue
        with segment:
            if stop is not None and stop[0] == segment.inode:
                segment.end = stop[1]
            skip = -min(offset, 0)
            segment.seek(max(offset, 0))
            offset = 0
            async for line in _follow(segment, path, event, end):
                if skip:
                    skip -= 1
                    continue
                if left is not None:
                    if left == 0:
                        return
                    left -= 1
                yield line
            position = _next(segment, path) if segment.end is None else None


def _size_now(path: Path) -> tuple[tuple[int, int], int] | None:
    """Identity and size of the newest file."""
    with suppress(FileNotFoundError):
        facts = path.stat()
        return (facts.st_dev, facts.st_ino), facts.st_size
    return None


async def _follow(
    segment: Segment, path: Path, event: asyncio.Event | None, end: asyncio.Future[object] | None
) -> AsyncIterator[bytes]:
    """The lines of one file; of the newest one also those to come, until it is rotated away or the end."""
    last_pass = False
    while True:
        if event is not None:
            event.clear()
        while (lines := segment.lines()) is not None:
            for line in lines:
                yield line
            await asyncio.sleep(0)  # a long log must not keep others waiting
        if segment.end is not None:
            return
        if last_pass or not _is_newest(segment, path):
            # What was written between our last read and the rotation was read by now, or is in this pass.
            if last_pass:
                return
            last_pass = True
        elif not await _wait(event, end):
            last_pass = True


async def _wait(event: asyncio.Event | None, end: asyncio.Future[object] | None) -> bool:
    """Wait for a change; False when nothing more is to come."""
    if event is None or end is None or end.done():
        return False
    change: asyncio.Future[object] = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((change, end), return_when=asyncio.FIRST_COMPLETED)
    finally:
        change.cancel()
    return not end.done()


def _is_newest(segment: Segment, path: Path) -> bool:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return False
    return (facts.st_dev, facts.st_ino) == segment.inode


def _next(segment: Segment, path: Path) -> Path | None:
    """The file that follows this one, which may have been renamed or packed meanwhile; None after the newest."""
    for _attempt in range(_ATTEMPTS):
        number = place_of(segment.inode, path)
        if number is None:
            break
        if number == 0:
            return None
        following = numbered(path, number - 1)
        if following is not None and place_of(segment.inode, path) == number:
            return following  # it was not rotated while we looked
    return segments(path)[0]  # it is gone, being the oldest: all that is left comes after it
