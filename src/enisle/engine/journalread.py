"""Reading an instance's log back from the host's journal, by journalctl(1)."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Any

import msgspec

from enisle.engine.logfile import LogRecord, parse_time
from enisle.errors import NotSupported

_LINE_BYTES = 1 << 20
_LATE_S = 0.5  # how long the journal may take to show what was written last
_STREAMS = {"6": 1, "3": 2}
_OURS = frozenset(
    "CONTAINER_ID CONTAINER_ID_FULL CONTAINER_NAME CONTAINER_PARTIAL_MESSAGE CONTAINER_TAG IMAGE_NAME MESSAGE PRIORITY "
    "SYSLOG_IDENTIFIER SYSLOG_TIMESTAMP".split()
)
_decoder = msgspec.json.Decoder(dict[str, Any])


async def read_journal(
    instance_id: str,
    *,
    stdout: bool = True,
    stderr: bool = True,
    since_ns: int = 0,
    until_ns: int = 0,
    tail: int | None = None,
    ended: Awaitable[object] | None = None,
) -> AsyncIterator[LogRecord]:
    """The records, oldest first; with ``ended`` it goes on until that is done. NotSupported without journalctl."""
    cursor = ""
    # At last what a journalctl that followed had not got to when it was ended.
    for follow in (True, False) if ended is not None else (False,):
        if cursor:
            since_ns, tail = 0, None
        arguments = arguments_of(instance_id, since_ns=since_ns, until_ns=until_ns, tail=tail, follow=follow)
        arguments += [f"--after-cursor={cursor}"] if cursor else []
        async with contextlib.aclosing(_entries(arguments, ended if follow else None)) as entries:
            async for entry in entries:
                cursor = entry.get("__CURSOR", cursor)
                if (record := record_of(entry)) is not None and (stdout if record.stream == 1 else stderr):
                    yield record


async def _entries(arguments: list[str], ended: Awaitable[object] | None = None) -> AsyncGenerator[dict[str, Any]]:
    """What journalctl prints; with ``ended`` it is ended some time after that is done. NotSupported without it."""
    program = shutil.which("journalctl")
    if program is None:
        raise NotSupported("configured logging driver does not support reading: this host has no journalctl")
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_LINE_BYTES,
    )
    ending = asyncio.ensure_future(_terminate_after(ended, process)) if ended is not None else None
    try:
        assert process.stdout is not None
        async for line in process.stdout:
            with contextlib.suppress(msgspec.DecodeError):
                yield _decoder.decode(line)
    finally:
        if ending is not None:
            ending.cancel()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def arguments_of(instance_id: str, *, since_ns: int, until_ns: int, tail: int | None, follow: bool) -> list[str]:
    """What journalctl is called with. Pure."""
    arguments = ["--output=json", "--all", "--no-pager", "--quiet", f"--lines={'all' if tail is None else tail}"]
    if since_ns:
        arguments.append(f"--since=@{since_ns // 10**9}.{since_ns % 10**9 // 1000:06d}")
    if until_ns:
        arguments.append(f"--until=@{until_ns // 10**9}.{until_ns % 10**9 // 1000:06d}")
    if follow:
        arguments.append("--follow")
    return [*arguments, f"CONTAINER_ID_FULL={instance_id}"]


async def _terminate_after(ended: Awaitable[object], process: asyncio.subprocess.Process) -> None:
    await ended
    await asyncio.sleep(_LATE_S)
    with contextlib.suppress(ProcessLookupError):
        process.terminate()


def record_of(entry: dict[str, Any]) -> LogRecord | None:
    """The record of one entry; None when it is none of ours. A message that is no text comes as a list of bytes.

    What the journal has added begins with "_"; of the rest, what is not ours are labels and variables asked for.
    """
    try:
        message = entry["MESSAGE"]
        data = message.encode() if isinstance(message, str) else bytes(message)
        part = entry.get("CONTAINER_PARTIAL_MESSAGE") == "true"
        return LogRecord(
            stream=_STREAMS.get(str(entry.get("PRIORITY")), 1),
            time_ns=_time(entry),
            data=data if part else data + b"\n",
            attributes={name: str(entry[name]) for name in sorted(entry) if name[0] != "_" and name not in _OURS},
        )
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def _time(entry: dict[str, Any]) -> int:
    """When it was written; when it was received, where that is not known."""
    try:
        return parse_time(entry["SYSLOG_TIMESTAMP"])
    except (KeyError, ValueError, AttributeError):
        return int(entry["__REALTIME_TIMESTAMP"]) * 1000
