"""The API over a fake engine, on a real unix socket."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from enisle.api.app import make_app
from enisle.api.server import serve
from tests.unit.api.fake_engine import FakeEngine


@dataclass
class Answer:
    status: int
    reason: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.json["message"])


@dataclass
class Client:
    """Speaks HTTP/1.1 by hand, so that tests see what goes over the wire. One connection per request."""

    path: str
    engine: FakeEngine
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(self.path)
        self.writers.append(writer)
        return reader, writer

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        data: bytes | None = None,
        version: str = "/v1.47",
    ) -> Answer:
        """One request and its whole answer. ``body`` is sent as JSON, ``data`` as it is."""
        reader, writer = await self.open()
        fields = {"Host": "docker", "Connection": "close", **(headers or {})}
        payload = data if data is not None else b""
        if body is not None:
            payload = json.dumps(body).encode()
            fields.setdefault("Content-Type", "application/json")
        if payload or method in ("POST", "PUT"):
            fields.setdefault("Content-Length", str(len(payload)))
        writer.write(head(method, version + path, fields) + payload)
        answer = await read_head(reader)
        if answer.status not in (204, 304) and method != "HEAD":
            answer.body = await read_body(reader, answer)
        writer.close()
        return answer

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.request("GET", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        return await self.request("POST", path, body, **options)


def head(method: str, path: str, fields: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def read_head(reader: asyncio.StreamReader) -> Answer:
    raw = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = raw.strip().split("\r\n")
    _, status, reason = first.split(" ", 2)
    return Answer(int(status), reason, {line.partition(": ")[0].title(): line.partition(": ")[2] for line in lines})


async def read_body(reader: asyncio.StreamReader, answer: Answer) -> bytes:
    """Raises IncompleteReadError when the answer was cut off."""
    if "Content-Length" in answer.headers:
        return await reader.readexactly(int(answer.headers["Content-Length"]))
    assert answer.headers.get("Transfer-Encoding") == "chunked"
    body = b""
    while chunk := await read_chunk(reader):
        body += chunk
    return body


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """One chunk of a chunked answer; empty at its end."""
    size = int(await reader.readuntil(b"\r\n"), 16)
    return (await reader.readexactly(size + 2))[:-2]


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until the condition holds."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition never came to hold")


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    engine = FakeEngine()
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        serving = await serve(make_app(engine), [sock])  # type: ignore[arg-type]
        made = Client(str(path), engine)
        yield made
        for writer in made.writers:
            writer.close()
        await serving.close()
