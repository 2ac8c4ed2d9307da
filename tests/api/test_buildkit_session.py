"""BuildKit's protocol by a client of our own: builds as docker clients ask for them without buildx, and clients that
keep no rule."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import pytest

from enisle.buildkit.control_messages import SolveRequest, StatusResponse
from enisle.buildkit.grpc import Call, CallFailed, Calling, Server, call
from enisle.buildkit.http2 import Connection, adopt
from enisle.buildkit.session_messages import Empty, Packet, PacketKind, Stat
from tests.daemon import Daemon

FILES = "/moby.filesync.v1.FileSync/DiffCopy"
SOLVE = "/moby.buildkit.v1.Control/Solve"


async def upgraded(daemon: Daemon, path: str, *headers: str) -> socket.socket:
    """A connection that speaks HTTP/2 from now on."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    await loop.sock_connect(sock, str(daemon.engine_socket))
    lines = [f"POST {path} HTTP/1.1", "Host: docker", "Connection: Upgrade", "Upgrade: h2c", *headers]
    await loop.sock_sendall(sock, ("\r\n".join(lines) + "\r\n\r\n").encode())
    head = b""
    while b"\r\n\r\n" not in head:
        byte = await loop.sock_recv(sock, 1)
        assert byte, head
        head += byte
    assert head.startswith(b"HTTP/1.1 101"), head
    return sock


async def send_files(call: Call, files: dict[str, bytes]) -> None:
    """All files, whatever was asked for."""
    for name, data in files.items():
        await call.send(Packet(stat=Stat(path=name, mode=0o644, size=len(data))))
    await call.send(Packet())
    contents = list(files.values())
    while (packet := await call.receive(Packet)) is not None and packet.kind == PacketKind.REQUEST:
        await call.send(Packet(kind=PacketKind.DATA, id=packet.id, data=contents[packet.id]))
        await call.send(Packet(kind=PacketKind.DATA, id=packet.id))
    await call.send(Packet(kind=PacketKind.FINISHED))


@asynccontextmanager
async def session(daemon: Daemon, serve: Any) -> AsyncIterator[str]:
    """A session whose files ``serve`` sends; its id."""
    identity = uuid.uuid4().hex
    headers = [f"X-Docker-Expose-Session-Uuid: {identity}", f"X-Docker-Expose-Session-Grpc-Method: {FILES}"]
    sock = await upgraded(daemon, "/session", *headers)
    connection = await adopt(sock.detach(), b"", Server({FILES: serve}).accept)
    try:
        yield identity
    finally:
        connection.close()
        await connection.closed()


@asynccontextmanager
async def control(daemon: Daemon) -> AsyncIterator[Connection]:
    """Where calls are made."""
    sock = await upgraded(daemon, "/v1.47/grpc")
    connection = await adopt(sock.detach(), b"", None)
    try:
        yield connection
    finally:
        connection.close()
        await connection.closed()


async def built(daemon: Daemon, **query: str) -> list[dict[str, Any]]:
    """The messages of POST /build."""
    reader, writer = await asyncio.open_unix_connection(str(daemon.engine_socket))
    writer.write(f"POST /v1.41/build?{urlencode(query)} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
    answer = (await asyncio.wait_for(reader.read(), 60)).partition(b"\r\n\r\n")[2]
    writer.close()
    return [json.loads(line) for line in answer.splitlines()]


def steps(messages: list[dict[str, Any]]) -> dict[str, str]:
    """Each step and its error."""
    found = {}
    for message in messages:
        if message.get("id") == "moby.buildkit.trace":
            for vertex in StatusResponse.decode(base64.b64decode(message["aux"])).vertexes:
                found[vertex.name] = vertex.error
    return found


async def test_a_build_as_older_clients_ask_for_it(daemon: Daemon) -> None:
    async def serve(call: Call) -> None:
        await send_files(call, {"Dockerfile": b"FROM busybox\nARG X\nRUN test $X = 5 && exit $FAIL\n"})

    name = f"kit-{uuid.uuid4().hex[:8]}"
    async with session(daemon, serve) as identity:
        common = {"version": "2", "remote": "client-session", "session": identity, "t": name}
        messages = await built(daemon, **common, buildargs='{"X": "5"}')
        failed = await built(daemon, **common, buildargs='{"X": "6"}')
        lost = await built(daemon, **(common | {"remote": "upload-request"}))
    [image] = [message["aux"]["ID"] for message in messages if message.get("id") == "moby.image.id"]
    assert daemon.docker("inspect", "-f", "{{.Id}}", name).stdout.strip() == image
    daemon.docker("rmi", "-f", name)
    assert "[2/2] RUN test $X = 5 && exit $FAIL" in steps(messages) and set(steps(messages).values()) == {""}
    why = 'process "/bin/sh -c test $X = 5 && exit $FAIL" did not complete successfully: exit code: 1'
    assert failed[-1]["errorDetail"] == {"message": why} and why in steps(failed).values()
    assert "standard input" in lost[0]["message"]


async def silent(call: Call) -> None:
    await call.send(Packet(kind=99))


async def lying(call: Call) -> None:
    await call.send(Packet(stat=Stat(path="../../etc/cron.d/x", mode=0o644, size=1)))


async def pushy(call: Call) -> None:
    await call.send(Packet(kind=PacketKind.DATA, id=5, data=b"x"))


async def gone(call: Call) -> None:
    raise ConnectionError


@pytest.mark.parametrize("serve", [silent, lying, pushy, gone])
async def test_files_of_a_client_that_keeps_no_rule(daemon: Daemon, serve: Any) -> None:
    async with session(daemon, serve) as identity, control(daemon) as connection:
        request = SolveRequest(ref=uuid.uuid4().hex, session=identity, frontend="dockerfile.v0")
        with pytest.raises(CallFailed, match=r"dockerfile|files|name|asked|read"):
            await call(connection, SOLVE, request, Empty)
    assert not list((daemon.data_root / "build" / "tmp").iterdir()) and "Traceback" not in daemon.log


async def test_requests_that_cannot_be_carried_out_are_refused(daemon: Daemon) -> None:
    async with control(daemon) as connection:
        for request in (
            SolveRequest(),
            SolveRequest(ref="x" * 1000),
            SolveRequest(ref="a", frontend="gateway.v0", attributes={"source": "x"}),
            SolveRequest(ref="b", frontend="dockerfile.v0"),
        ):
            with pytest.raises(CallFailed):
                await call(connection, SOLVE, request, Empty)
        for data in (b"\0\0\0\0\3\x0a\xff\xff", b"\1\0\0\0\0", b"\0\x7f\xff\xff\xff", b"\0\0"):
            async with Calling(connection, SOLVE, []) as calling:
                await calling._there.stream.write(data, end=True)
                with pytest.raises(CallFailed):
                    await calling.receive(Empty)
    assert "Traceback" not in daemon.log
