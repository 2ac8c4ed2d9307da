"""Connections that become raw streams: the head, what was read ahead, half-close, and no FIN from our copy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from enisle.api.app import make_app
from enisle.api.framing import STDOUT, frame
from enisle.api.server import serve
from enisle.model.instance import Status
from tests.unit.api.conftest import Client, head, read_head, until
from tests.unit.api.fake_engine import FakeEngine

UPGRADE = {"Host": "docker", "Connection": "Upgrade", "Upgrade": "tcp"}


async def test_attach_upgrades_and_keeps_what_was_sent_with_the_request(client: Client) -> None:
    client.engine.instances.add("web")
    reader, writer = await client.open()
    path = "/v1.47/containers/web/attach?stream=1&stdin=1&stdout=1&stderr=1"
    writer.write(head("POST", path, UPGRADE | {"Content-Length": "0"}) + b"early ")
    answer = await read_head(reader)
    assert (answer.status, answer.reason) == (101, "UPGRADED")
    assert answer.headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
    assert answer.headers["Upgrade"] == "tcp"
    assert answer.headers["Api-Version"] == "1.47"
    writer.write(b"late")
    writer.write_eof()
    assert await reader.read() == b"hello\nearly late"


@pytest.mark.parametrize(
    ("version", "terminal", "kind"),
    [("v1.47", False, "multiplexed"), ("v1.47", True, "raw"), ("v1.41", False, "raw"), ("v1.41", True, "raw")],
)
async def test_content_type_depends_on_version_and_terminal(
    client: Client, version: str, terminal: bool, kind: str
) -> None:
    client.engine.instances.add("web", tty=terminal)
    reader, writer = await client.open()
    writer.write(head("POST", f"/{version}/containers/web/attach?stream=1&stdout=1", UPGRADE))
    answer = await read_head(reader)
    assert answer.headers["Content-Type"] == f"application/vnd.docker.{kind}-stream"
    assert client.engine.instances.attached[0].framed is not terminal


async def test_attach_without_upgrade_answers_200(client: Client) -> None:
    client.engine.instances.add("web")
    reader, writer = await client.open()
    writer.write(head("POST", "/v1.47/containers/web/attach?stream=1&stdout=1", {"Host": "d", "Content-Length": "0"}))
    answer = await read_head(reader)
    assert answer.status == 200
    assert await reader.read() == b"hello\n"


async def test_attach_is_refused_over_http(client: Client) -> None:
    client.engine.instances.add("web", Status.PAUSED)
    answer = await client.post("/containers/web/attach?stream=1", headers={"Upgrade": "tcp", "Connection": "Upgrade"})
    assert answer.status == 409
    assert answer.message == "container web is paused, unpause the container before attach"
    missing = await client.post("/containers/nobody/attach", headers={"Upgrade": "tcp", "Connection": "Upgrade"})
    assert (missing.status, missing.message) == (404, "No such container: nobody")


async def test_attach_refuses_bad_detach_keys(client: Client) -> None:
    client.engine.instances.add("web")
    answer = await client.post("/containers/web/attach?stream=1&detachKeys=ctrl-%C3%A4")
    assert answer.status == 400
    assert "Invalid detach keys" in answer.message


async def test_exec_round_trip(client: Client) -> None:
    client.engine.instances.add("web")
    created = await client.post(
        "/containers/web/exec", {"AttachStdin": True, "AttachStdout": True, "Tty": True, "Cmd": ["cat"]}
    )
    assert created.status == 201
    reader, writer = await client.open()
    body = b'{"Tty":true}'
    fields = UPGRADE | {"Content-Type": "application/json", "Content-Length": str(len(body))}
    writer.write(head("POST", f"/v1.47/exec/{created.json['Id']}/start", fields) + body)
    assert (await read_head(reader)).status == 101
    writer.write(b"typed")
    writer.write_eof()
    assert await reader.read() == b"typed"


async def test_exec_failure_is_told_on_the_stream(client: Client) -> None:
    client.engine.instances.add("web")
    created = await client.post("/containers/web/exec", {"AttachStdout": True, "Cmd": ["missing"]})
    reader, writer = await client.open()
    fields = UPGRADE | {"Content-Type": "application/json", "Content-Length": "2"}
    writer.write(head("POST", f"/v1.47/exec/{created.json['Id']}/start", fields) + b"{}")
    assert (await read_head(reader)).status == 101
    assert await reader.read() == frame(STDOUT, b'exec: "missing": executable file not found in $PATH\r\n')
    state = await client.get(f"/exec/{created.json['Id']}/json")
    assert (state.json["ExitCode"], state.json["Running"]) == (127, False)


async def test_detached_exec_answers_its_failure(client: Client) -> None:
    client.engine.instances.add("web")
    created = await client.post("/containers/web/exec", {"Cmd": ["missing"]})
    answer = await client.post(f"/exec/{created.json['Id']}/start", {"Detach": True})
    assert answer.status == 400
    assert "executable file not found" in answer.message


async def test_web_socket_attach(client: Client) -> None:
    client.engine.instances.add("web")
    reader, writer = await client.open()
    fields = {
        "Host": "docker",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    writer.write(head("GET", "/v1.47/containers/web/attach/ws?stream=1&stdout=1&stdin=0", fields))
    assert (await read_head(reader)).status == 101
    assert await reader.readexactly(2) == b"\x82\x06"  # one binary message of six bytes
    assert await reader.readexactly(6) == b"hello\n"


class _HeldEngine(FakeEngine):
    """Keeps the descriptors it is handed, as a keeper does."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[int] = []
        self.instances.attach = self._attach  # type: ignore[method-assign]

    async def _attach(self, ref: str, connection: object, *, logs: bool = False) -> None:
        self.held.append(connection.fd)  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def _held(path: Path) -> AsyncIterator[tuple[_HeldEngine, socket.socket, socket.socket]]:
    """A hijacked connection: engine, the client's socket, the end that the engine holds."""
    engine = _HeldEngine()
    engine.instances.add("web")
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as mine:
        listener.bind(str(path))
        serving = await serve(make_app(engine), [listener])  # type: ignore[arg-type]
        mine.setblocking(False)
        await loop.sock_connect(mine, str(path))
        await loop.sock_sendall(mine, head("POST", "/containers/web/attach?stream=1&stdin=1", UPGRADE))
        assert b"101 UPGRADED" in await loop.sock_recv(mine, 4096)
        await until(lambda: bool(engine.held) and not serving.connections)
        with socket.socket(fileno=engine.held[0]) as theirs:
            theirs.setblocking(False)
            yield engine, mine, theirs
        await serving.close()


async def _survives(path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with _held(path) as (_engine, mine, theirs):
        # The server's own transport is gone by now. Neither direction may have seen its end.
        with pytest.raises(BlockingIOError):
            mine.recv(1)
        await loop.sock_sendall(mine, b"in")
        assert await loop.sock_recv(theirs, 10) == b"in"
        mine.shutdown(socket.SHUT_WR)
        assert await loop.sock_recv(theirs, 10) == b""
        await loop.sock_sendall(theirs, b"out")
        assert await loop.sock_recv(mine, 10) == b"out"


def test_handed_over_connection_survives_uvloop(tmp_path: Path) -> None:
    uvloop.run(_survives(tmp_path / "api.sock"))


def test_handed_over_connection_survives_asyncio(tmp_path: Path) -> None:
    asyncio.run(_survives(tmp_path / "api.sock"))


async def test_no_descriptor_is_left_behind(client: Client) -> None:
    client.engine.instances.add("web")
    await client.get("/containers/json")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        reader, writer = await client.open()
        writer.write(head("POST", "/v1.47/containers/web/attach?stream=1&stdout=1", UPGRADE))
        await read_head(reader)
        assert await reader.read() == b"hello\n"
        writer.close()
        await writer.wait_closed()
    await asyncio.gather(*client.engine.instances.keepers)
    assert len(os.listdir("/proc/self/fd")) <= before + 2
