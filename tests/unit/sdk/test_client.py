from __future__ import annotations

import socket
from pathlib import Path

import pytest

from enisle.errors import Conflict, NotFound, Unavailable
from enisle.sdk import AsyncClient, Client
from tests.unit.sdk.fake_server import Answer, Asked, FakeServer, frame


def test_one_connection_serves_many_requests(server: FakeServer) -> None:
    server.on("GET", "/containers/json", [])
    with Client(server.host) as client:
        for _ in range(5):
            assert client.instances.list() == []
    assert server.connections == 1


def test_a_connection_the_server_has_closed_is_not_used_again(server: FakeServer) -> None:
    server.on("GET", "/containers/json", Answer(body=[], close=True))
    with Client(server.host) as client:
        assert client.instances.list() == []
        assert client.instances.list() == []
    assert server.connections == 2


def test_an_error_is_raised_and_the_connection_goes_on(server: FakeServer) -> None:
    server.on("GET", "/containers/x/json", Answer(404, {"message": "No such container: x"}))
    server.on("POST", "/containers/x/pause", Answer(409, {"message": "not running"}))
    with Client(server.host) as client:
        with pytest.raises(NotFound, match="No such container: x"):
            client.instances.get("x")
        with pytest.raises(Conflict):
            client.instances.pause("x")
    assert server.connections == 1


def test_objects_come_one_by_one_whatever_the_line_breaks(server: FakeServer) -> None:
    pieces = [b'{"a": 1}\r\n{"a"', b": 2}\n", b'{"a": 3}', b'{"a": "\xc3', b'\xa9"}']
    server.on("GET", "/events", Answer(pieces=pieces))
    with Client(server.host) as client, client.system.open_events() as exchange:
        assert list(exchange.objects()) == [{"a": 1}, {"a": 2}, {"a": 3}, {"a": "é"}]


def test_uploads_are_sent_in_chunks(server: FakeServer) -> None:
    server.on("POST", "/images/load", Answer(pieces=[b'{"stream": "Loaded\\n"}\n']))
    with Client(server.host) as client, client.images.open_load(iter([b"abc", b"", b"def"])) as exchange:
        assert list(exchange.objects()) == [{"stream": "Loaded\n"}]
    assert server.asked[0].body == b"abcdef"


def test_an_upload_the_server_refuses_midway_tells_why(server: FakeServer) -> None:
    def refuse(connection: socket.socket) -> None:
        body = b'{"message": "no space left on device"}'
        connection.sendall(b"HTTP/1.1 507 X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = server.path.with_name("early")
    listener.bind(str(path))
    listener.listen()

    def pieces() -> object:
        connection, _ = listener.accept()
        refuse(connection)
        connection.shutdown(socket.SHUT_RD)
        for _ in range(64):
            yield bytes(1 << 16)
        connection.close()

    with pytest.raises(Exception, match="no space left"):
        Client(f"unix://{path}").images.open_load(pieces())  # type: ignore[arg-type]
    listener.close()


def test_hijacking_gives_the_bare_connection(server: FakeServer) -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(b"hello ")
        data = b""
        while piece := connection.recv(100):
            data += piece
        connection.sendall(data.upper())

    server.on("POST", "/containers/x/attach", Answer(hijack=talk))
    with Client(server.host) as client:
        connection, first = client.instances.attach("x", stdin=True, stdout=True, stderr=True)
        connection.sendall(b"world")
        connection.shutdown(socket.SHUT_WR)
        data = first
        while piece := connection.recv(100):
            data += piece
        connection.close()
    assert data == b"hello WORLD"
    assert server.asked[0].headers["upgrade"] == "tcp"


def test_a_wait_tells_its_head_before_the_end(server: FakeServer) -> None:
    released: list[bool] = []

    def answer(asked: Asked) -> Answer:
        def pieces() -> object:
            while not released:
                yield b" "
            yield b'{"StatusCode": 3}'

        return Answer(pieces=pieces())  # type: ignore[arg-type]

    server.on("POST", "/containers/x/wait", answer)
    with Client(server.host) as client:
        exchange = client.instances.open_wait("x")
        released.append(True)
        assert exchange.reply().json() == {"StatusCode": 3}


def test_no_daemon_is_said_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="Is it running"):
        Client(f"unix://{tmp_path}/nothing").system.ping()


def test_an_answer_that_breaks_off_is_an_error(server: FakeServer) -> None:
    def answer(asked: Asked) -> Answer:
        asked.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        asked.connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionError

    server.on("GET", "/info", answer)
    with Client(server.host) as client, pytest.raises(Unavailable):
        client.system.info()


async def test_the_asyncio_client_speaks_the_same(server: FakeServer) -> None:
    server.on("GET", "/containers/json", [{"Id": "a"}])
    server.on("GET", "/containers/x/json", Answer(404, {"message": "No such container: x"}))
    server.on("GET", "/containers/x/logs", Answer(pieces=[frame(1, b"out"), frame(2, b"err")]))
    server.on("POST", "/images/load", Answer(pieces=[b'{"stream": "ok"}\n']))
    server.on("POST", "/containers/x/attach", Answer(hijack=lambda connection: connection.sendall(b"hi")))
    client = AsyncClient(server.host)
    assert await client.instances.list() == [{"Id": "a"}]
    with pytest.raises(NotFound):
        await client.instances.get("x")
    async with await client.instances.open_logs("x") as exchange:
        assert [item async for item in exchange.frames()] == [(1, b"out"), (2, b"err")]

    async def body() -> object:
        yield b"abc"

    async with await client.images.open_load(body()) as exchange:  # type: ignore[arg-type]
        assert [item async for item in exchange.objects()] == [{"stream": "ok"}]
    (reader, writer), first = await client.instances.attach("x", stdin=False, stdout=True, stderr=True)
    assert first + await reader.read() == b"hi"
    writer.close()
