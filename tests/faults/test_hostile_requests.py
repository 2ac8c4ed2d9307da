"""Requests as no client sends them: broken HTTP, bodies and parameters of every wrong kind, for every operation.

Whatever comes, the answer is Docker's JSON error or a closed connection, at once; the relay checks the answers' shape.
"""

from __future__ import annotations

import gzip
import json
import random
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.api.contract.description import Operation, document, operations
from tests.api.contract.http1 import Message, Reader, answer_length
from tests.daemon import Daemon

_LIMIT_S = 10.0
_ROUNDS = 5_000
_JSON = "Content-Type: application/json\r\n"


def send(daemon: Daemon, raw: bytes, *, half_close: bool = False) -> list[Message]:
    """The answers to these bytes, each with its body, until the engine closes or nothing more is due."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_LIMIT_S)
        sock.connect(str(daemon.engine_socket))
        received = b""
        try:
            sock.sendall(raw)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(65536):
                received += data
        except (BrokenPipeError, ConnectionResetError):
            pass
    return split(received)


def split(received: bytes) -> list[Message]:
    """The answers in a stream of bytes, of requests that have bodies in their answers."""
    found: list[Message] = []
    reader = Reader(lambda answer: answer_length(answer, "GET"), found.append)
    reader.feed(received)
    reader.end()
    return [answer for answer in found if answer.status != 100]


def post(path: str, body: bytes, headers: str = _JSON) -> bytes:
    return (
        f"POST /v1.47{path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n{headers}"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def refused(answers: list[Message]) -> int:
    """The status of the only answer, which is an error in Docker's shape."""
    assert len(answers) == 1
    body = bytes(answers[0].body or b"")
    assert answers[0].media_type == "application/json", body
    assert list(json.loads(body)) == ["message"]
    assert b"Traceback" not in body
    return answers[0].status


_GET = b"GET /_ping HTTP/1.1\r\nHost: docker\r\n"
_CREATE = (
    b"POST /v1.47/volumes/create HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nConnection: close\r\n"
)
_CHUNKED = _CREATE + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="the preface of HTTP/2"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), id="TLS"),
        pytest.param(b"GET /_ping HTTP/9.9\r\n\r\n", id="a version that is none"),
        pytest.param(_CREATE + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", id="length and chunks"),
        pytest.param(_CREATE + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", id="two lengths"),
        pytest.param(_CREATE + b"Content-Length: -2\r\n\r\n{}", id="a length below 0"),
        pytest.param(_CREATE + b"Content-Length: 99999999999999999999999\r\n\r\n{}", id="a length beyond 64 bits"),
        pytest.param(_CREATE + b"Content-Length: 0x2\r\n\r\n{}", id="a length in another base"),
        pytest.param(
            _CREATE + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", id="a chunk's size that is none"
        ),
        pytest.param(
            _CREATE + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}", id="a chunk beyond 64 bits"
        ),
        pytest.param(_CREATE + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n", id="a chunk without its end"),
        pytest.param(_CREATE + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="another transfer encoding"),
        pytest.param(b"GET /_ping HTTP/1.1\r\nHost: a\r\nHost : b\r\n\r\n", id="a space before the colon"),
        pytest.param(_GET + b"X: a\0b\r\n\r\n", id="NUL in a header"),
        pytest.param(b"GET /\0 HTTP/1.1\r\nHost: docker\r\n\r\n", id="NUL in the path"),
        pytest.param(b"GET http://[/_ping HTTP/1.1\r\nHost: docker\r\n\r\n", id="an address that is none"),
    ],
)
def test_broken_http(daemon: Daemon, raw: bytes) -> None:
    assert 400 <= refused(send(daemon, raw)) < 500
    assert send(daemon, _GET + b"Connection: close\r\n\r\n")[0].body == b"OK"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(_GET + b"X: " + b"a" * (1 << 20) + b"\r\n\r\n", id="a header of 1 MB"),
        pytest.param(_GET + b"".join(b"X-%d: y\r\n" % n for n in range(100_000)) + b"\r\n", id="100,000 headers"),
        pytest.param(b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\n\r\n", id="a path of 1 MB"),
    ],
)
def test_a_head_without_end(daemon: Daemon, raw: bytes) -> None:
    """The connection is closed while the client still sends, so that it may miss the answer."""
    assert all(refused([answer]) == 400 for answer in send(daemon, raw))
    assert send(daemon, _GET + b"Connection: close\r\n\r\n")[0].body == b"OK"


def test_requests_in_a_row_and_upgrades_that_are_none(daemon: Daemon) -> None:
    row = send(daemon, (_GET + b"\r\n") * 500 + _GET + b"Connection: close\r\n\r\n")
    assert [bytes(answer.body or b"") for answer in row] == [b"OK"] * 501
    upgrade = b"Connection: Upgrade\r\nUpgrade: h2c, tcp, websocket\r\n\r\n"
    assert send(daemon, _GET + upgrade.replace(b"Upgrade\r\n", b"Upgrade, close\r\n", 1))[0].body == b"OK"


def test_a_refusal_that_quotes_stray_bytes(daemon: Daemon) -> None:
    head = b"POST /v1.47/volumes/create HTTP/1.1\r\nHost: docker\r\nContent-Type: application/\x80son\r\n"
    answer = send(daemon, head + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}")[0]
    assert answer.status == 400
    assert b"unsupported Content-Type header" in bytes(answer.body or b"")


def test_bytes_that_mean_nothing(daemon: Daemon) -> None:
    """Valid requests with a few bytes changed, taken out, doubled or cut off."""
    dice = random.Random(20)
    valid = [
        _GET + b"Connection: close\r\n\r\n",
        post("/volumes/create?x=1", b'{"Name": "mutated", "Labels": {"a": "b"}}'),
        _CREATE + b'Transfer-Encoding: chunked\r\n\r\n12\r\n{"Name":"mutated"}\r\n0\r\n\r\n',
        b"GET /v1.47/containers/json?all=1&filters=%7B%22status%22%3A%5B%22exited%22%5D%7D HTTP/1.1\r\nHost: d\r\n\r\n",
    ]
    for _ in range(_ROUNDS):
        raw = _mutated(dice, dice.choice(valid))
        answers = send(daemon, raw, half_close=True)
        assert all(answer.status < 500 for answer in answers), (raw, answers)
    assert daemon.process is not None
    assert daemon.process.poll() is None
    daemon.docker("volume", "prune", "-af")


def _mutated(dice: random.Random, raw: bytes) -> bytes:
    data = bytearray(raw)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(data))
        change = dice.randrange(4)
        if change == 0:
            data[place] = dice.randrange(256)
        elif change == 1:
            del data[place : place + dice.randint(1, 8)]
        elif change == 2:
            data[place:place] = data[place : place + dice.randint(1, 8)]
        else:
            del data[place:]
        if not data:
            return raw
    return bytes(data)


def _depth(levels: int) -> bytes:
    return b'{"Labels":' * levels + b"{}" + b"}" * levels


_BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"1",
    "a text": b'"x"',
    "two documents": b"{}{}",
    "half a character": b'{"Name": "\xff\xfe"}',
    "half a pair": b'{"Name": "\\ud800"}',
    "depth 100": _depth(100),
    "depth 100,000": _depth(100_000),
    "brackets": b"[" * 1_000_000,
    "a number beyond 64 bits": b'{"HostConfig": {"Memory": 1e400}, "Memory": 99999999999999999999999, "Limit": 1e400}',
    "a number of 100,000 digits": b'{"Memory": ' + b"9" * 100_000 + b"}",
    "NUL": b'{"Name": "a\\u0000b", "Image": "a\\u0000b", "Cmd": ["\\u0000"], "Container": "\\u0000"}',
    "all null": b'{"Name": null, "Image": null, "HostConfig": null, "Cmd": null, "Labels": null, "IPAM": null}',
    "wrong types": b'{"Name": 5, "Image": [], "HostConfig": "x", "Cmd": {"a": 1}, "Container": true, "Labels": []}',
    "names twice": b'{"Name": "a", "Name": ["b"], "name": 1, "NAME": {}}',
    "many members": b"{" + b",".join(b'"k%d": %d' % (n, n) for n in range(50_000)) + b"}",
    "gzip": gzip.compress(b'{"Name": "x"}'),
}


def parameters(operation: Operation) -> list[dict[str, Any]]:
    item = document()["paths"][operation.name.split(" ")[1]]
    return item[operation.method.lower()].get("parameters", [])


_WITH_BODY = [
    operation
    for operation in operations()
    if any(each["in"] == "body" and each["schema"].get("format") != "binary" for each in parameters(operation))
]


def _path(operation: Operation) -> str:
    return operation.name.split(" ")[1].replace("{id}", "missing").replace("{name}", "missing")


@pytest.mark.parametrize("operation", [pytest.param(each, id=each.name) for each in _WITH_BODY])
def test_bodies_of_every_wrong_kind(daemon: Daemon, operation: Operation) -> None:
    path = _path(operation)
    for kind, body in _BODIES.items():
        raw = post(path, body).replace(b"POST", operation.method.encode(), 1)
        (answer,) = send(daemon, raw)
        assert answer.status < 500 or answer.status in (501, 503), (kind, answer)
        if answer.status >= 400:
            refused([answer])
    raw = post(path, b"a=b", "Content-Type: application/x-www-form-urlencoded\r\n")
    assert refused(send(daemon, raw.replace(b"POST", operation.method.encode(), 1))) >= 400
    daemon.docker("volume", "prune", "-af")
    for name in daemon.docker("network", "ls", "-q", "--filter", "type=custom").stdout.split():
        daemon.docker("network", "rm", name)


_VALUES = (
    *(
        "%00",
        "%FF%FE",
        "%ED%A0%80",
        "%",
        "-1",
        "1e9",
        "999999999999999999999999",
        "9" * 5000,
        "0x10",
        "%2e%2e%2f",
        "%0a%0d",
    ),
    *(
        "true",
        "[]",
        "{",
        "%7B%22a%22%3A",
        "%7B%22label%22%3A5%7D",
        "%7B%22label%22%3A%5B5%5D%7D",
        "[" * 5000,
        "null",
        "1&{}=2",
    ),
)


@pytest.mark.parametrize(
    "operation",
    [pytest.param(each, id=each.name) for each in operations() if not each.name.endswith(("/build", "/events"))],
)
def test_parameters_of_every_wrong_kind(daemon: Daemon, operation: Operation) -> None:
    for name in [each["name"] for each in parameters(operation) if each["in"] == "query"]:
        for value in _VALUES:
            raw = (
                f"{operation.method} /v1.47{_path(operation)}?{name}={value.replace('{}', name)} HTTP/1.1\r\n"
                "Host: docker\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )
            answers = send(daemon, raw.encode())
            assert len(answers) == 1
            assert answers[0].status < 500 or answers[0].status in (501, 503), (raw, answers)


def test_bodies_nested_too_deeply(daemon: Daemon) -> None:
    deep = b'{"Image": "busybox", "Volumes": {"/a": ' + b'{"b":' * 65 + b"1" + b"}" * 67
    assert refused(send(daemon, post("/containers/create", deep))) == 400


def test_the_handler_sees_exactly_the_body(daemon: Daemon) -> None:
    """Length 0, chunks, more than 1 MiB, compressed: nothing is parsed but what was sent (CVE-2024-41110)."""
    create = "/volumes/create"
    assert refused(send(daemon, post(create, b""))) == 400
    big = json.dumps({"Name": "exact", "Labels": {"big": "x" * (2 << 20)}}).encode()
    (answer,) = send(daemon, post(create, big))
    assert (answer.status, len(json.loads(answer.body or b"")["Labels"]["big"])) == (201, 2 << 20)
    daemon.docker("volume", "rm", "exact")
    chunks = (
        b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (big[:5], big[5:70_000], big[70_000:])) + b"0\r\n\r\n"
    )
    (answer,) = send(daemon, _CREATE + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert (answer.status, len(json.loads(answer.body or b"")["Labels"]["big"])) == (201, 2 << 20)
    daemon.docker("volume", "rm", "exact")
    packed = gzip.compress(b'{"Name": "packed"}')
    assert refused(send(daemon, post(create, packed, _JSON + "Content-Encoding: gzip\r\n"))) == 400
    assert refused(send(daemon, post(create, b'{"Name": "' + b"x" * (9 << 20) + b'"}'))) == 413
    assert daemon.docker("volume", "ls", "-q", "--filter", "name=packed").stdout == ""


_LONG: dict[str, Callable[[str], object]] = {
    "Hostname": lambda text: {"Hostname": text},
    "Domainname": lambda text: {"Domainname": text},
    "User": lambda text: {"User": text},
    "WorkingDir": lambda text: {"WorkingDir": f"/{text}"},
    "Env": lambda text: {"Env": [f"A={text}"]},
    "StopSignal": lambda text: {"StopSignal": text},
    "MacAddress": lambda text: {"MacAddress": text},
    "NetworkMode": lambda text: {"HostConfig": {"NetworkMode": text}},
    "PidMode": lambda text: {"HostConfig": {"PidMode": text}},
    "IpcMode": lambda text: {"HostConfig": {"IpcMode": text}},
    "UTSMode": lambda text: {"HostConfig": {"UTSMode": text}},
    "CgroupParent": lambda text: {"HostConfig": {"CgroupParent": text}},
    "Sysctls": lambda text: {"HostConfig": {"Sysctls": {"net.core.somaxconn": text}}},
    "ExtraHosts": lambda text: {"HostConfig": {"ExtraHosts": [f"a:{text}"]}},
    "name of ExtraHosts": lambda text: {"HostConfig": {"ExtraHosts": [f"{text}:1.2.3.4"]}},
    "zone of Dns": lambda text: {"HostConfig": {"Dns": [f"fe80::1%{text}"]}},
    "Dns": lambda text: {"HostConfig": {"Dns": [text]}},
    "DnsSearch": lambda text: {"HostConfig": {"DnsSearch": [text]}},
    "DnsOptions": lambda text: {"HostConfig": {"DnsOptions": [text]}},
    "Binds": lambda text: {"HostConfig": {"Binds": [f"/tmp:/{text}"]}},
    "Runtime": lambda text: {"HostConfig": {"Runtime": text}},
}
_LENIENT = {"Env", "WorkingDir", "User", "Binds", "CgroupParent"}
"""Where a long text or a line feed can be meant; a file that is generated from it must not gain a line."""


@pytest.mark.parametrize("member", _LONG)
def test_long_texts_and_line_feeds(daemon: Daemon, member: str) -> None:
    for text in ("a\nb", "a\rb", "a\0b", "x" * (64 << 10), "x" * (4 << 20)):
        body = {"Image": "busybox", "Cmd": ["true"], **_LONG[member](text)}  # type: ignore[dict-item]
        (answer,) = send(daemon, post("/containers/create", json.dumps(body).encode()))
        if answer.status == 201:
            daemon.docker("rm", json.loads(answer.body or b"")["Id"])
            assert member in _LENIENT, text[:10]
            assert "\0" not in text
        else:
            assert refused([answer]) in (400, 404)
