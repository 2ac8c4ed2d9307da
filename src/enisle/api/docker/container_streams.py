"""Docker's tag Container: attach, logs and stats."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from aiohttp import web

from enisle.api.call import Call
from enisle.api.docker.detach_keys import raw_keys
from enisle.api.docker.stats_body import host_cpu_ns, stats_json
from enisle.api.framing import frame
from enisle.api.gathering import as_it_comes, in_blocks
from enisle.api.headread import wait_head_read
from enisle.api.reply import encode
from enisle.api.router import Route
from enisle.api.times import parse_time, rfc3339_fixed
from enisle.api.websocket import relay
from enisle.contracts import Connection
from enisle.errors import EnisleError, Invalid, NotFound
from enisle.model.instance import ALIVE, Instance

_STATS_INTERVAL_S = 1.0
_LOG_BUFFER_BYTES = 65536
_SETTLE_S = 0.2


async def attach(call: Call) -> web.StreamResponse:
    query = call.query
    keys = raw_keys(query.text("detachKeys"))
    instance = await call.engine.instances.check_attach(call.name)
    framed = not instance.spec.tty
    taken = call.hijack(framed=framed)
    if query.flag("logs"):
        await wait_head_read(taken.fd)
    if not query.flag("stream"):
        await _replay(call, taken.fd, framed=framed)
        return web.Response()
    connection = Connection(
        fd=taken.fd,
        stdin=query.flag("stdin"),
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        framed=framed,
        detach_keys=keys,
        initial=taken.initial,
    )
    await call.engine.instances.attach(instance.id, connection, logs=query.flag("logs"))
    return web.Response()


async def _replay(call: Call, fd: int, *, framed: bool) -> None:
    """Attach without ``stream``: what was logged so far, if that was asked for, then the end."""
    loop = asyncio.get_running_loop()
    with socket.socket(fileno=fd) as sock:
        sock.setblocking(False)
        if call.query.flag("logs"):
            async for data in _log_bytes(call, framed=framed, follow=False):
                await loop.sock_sendall(sock, data)


async def attach_websocket(call: Call) -> web.StreamResponse:
    query = call.query
    keys = raw_keys(query.text("detachKeys"))
    instance = await call.engine.instances.check_attach(call.name)

    async def hand_over(fd: int) -> None:
        connection = Connection(
            fd=fd,
            stdin=query.flag("stdin", default=True),
            stdout=query.flag("stdout", default=True),
            stderr=query.flag("stderr", default=True),
            framed=False,
            detach_keys=keys,
        )
        await call.engine.instances.attach(instance.id, connection, logs=query.flag("logs"))

    return await relay(call.request, hand_over)


async def logs(call: Call) -> web.StreamResponse:
    query = call.query
    if not (query.flag("stdout") or query.flag("stderr")):
        raise Invalid("Bad parameters: you must choose at least one stream")
    instance = await call.engine.instances.get(call.name)
    framed = not instance.spec.tty
    kind = "multiplexed" if framed and call.at_least(1, 42) else "raw"
    follow = query.flag("follow") and instance.state.status in ALIVE
    source = _log_bytes(call, framed=framed, follow=follow)
    async with aclosing(source):
        if follow:
            # The head goes out before the first record, which may be long in coming; failures come before it.
            parse_time(query.text("since"))
            parse_time(query.text("until"))
            response = await call.stream(f"application/vnd.docker.{kind}-stream")
            async with aclosing(as_it_comes(source)) as blocks:
                async for data in blocks:
                    await response.write(data)
            await response.write_eof()
            return response
        await _settled(call, instance)
        return await call.send_all(in_blocks(source, _LOG_BUFFER_BYTES), f"application/vnd.docker.{kind}-stream")


async def _settled(call: Call, instance: Instance) -> None:
    """Wait a moment for the end of what has just been started.

    Programs run a short command and ask for its log without waiting for its end: dockerd's start takes so long that
    they get away with it.
    """
    left_s = instance.state.started_at / 1e9 + _SETTLE_S - time.time()
    if instance.state.status in ALIVE and 0 < left_s <= _SETTLE_S:
        ended = await call.engine.instances.prepare_wait(instance.id)
        with suppress(TimeoutError):
            await asyncio.wait_for(ended, left_s)


async def _log_bytes(call: Call, *, framed: bool, follow: bool) -> AsyncGenerator[bytes, None]:
    """The log's records as the client wants to see them."""
    query = call.query
    timestamps, details = query.flag("timestamps"), query.flag("details")
    attached = "stdout" not in query and "stderr" not in query
    records = call.engine.instances.logs(
        call.name,
        follow=follow,
        stdout=attached or query.flag("stdout"),
        stderr=attached or query.flag("stderr"),
        since_ns=parse_time(query.text("since")),
        until_ns=parse_time(query.text("until")),
        tail=_tail(query.text("tail")),
    )
    async for record in records:
        data = record.data
        if details:
            words = ",".join(f"{key}={value}" for key, value in sorted(record.attributes.items()))
            data = words.encode() + b" " + data
        if timestamps:
            data = f"{rfc3339_fixed(record.time_ns)} ".encode() + data
        yield frame(record.stream, data) if framed else data


def _tail(text: str) -> int | None:
    """As dockerd: what is no number, or a negative one, means all."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


async def stats(call: Call) -> web.StreamResponse:
    query = call.query
    instance = await call.engine.instances.get(call.name)
    stream = query.flag("stream", default=True)
    if stream and query.flag("one-shot"):
        raise Invalid("cannot have stream=true and one-shot=true")
    current = await _reading(call, instance.id, None)
    running = instance.state.status in ALIVE
    if not stream and running and not query.flag("one-shot"):
        await asyncio.sleep(_STATS_INTERVAL_S)  # a rate needs two readings
        current = await _reading(call, instance.id, current)
    response = await call.stream("application/json")
    await response.write(encode(current) + b"\n")
    due = time.monotonic()
    while stream:
        due = max(due + _STATS_INTERVAL_S, time.monotonic())
        await asyncio.sleep(due - time.monotonic())
        try:
            current = await _reading(call, instance.id, current)
        except NotFound:
            break
        await response.write(encode(current) + b"\n")
    await response.write_eof()
    return response


async def _reading(call: Call, instance_id: str, before: dict[str, Any] | None) -> dict[str, Any]:
    instance = await call.engine.instances.get(instance_id)
    reading: dict[str, Any] = {}
    if instance.state.status in ALIVE:
        try:
            reading = await call.engine.instances.stats(instance_id)
        except NotFound:
            raise
        except EnisleError:
            reading = {}  # it has just ended
    host = {"cpus": os.cpu_count() or 1, "memory_bytes": _MEMORY_BYTES, "cpu_ns": host_cpu_ns()}
    if before is not None and not before["cpu_stats"].get("system_cpu_usage"):
        before = None
    return stats_json(instance, reading, before, host)


_MEMORY_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

ROUTES = [
    Route("POST", "containers/*/attach", attach),
    Route("GET", "containers/*/attach/ws", attach_websocket),
    Route("GET", "containers/*/logs", logs, watch=True),
    Route("GET", "containers/*/stats", stats, watch=True),
]
