"""The Python client against a real daemon."""

from __future__ import annotations

import asyncio
import os

import pytest

from enisle.errors import Conflict, NotFound
from enisle.sdk import AsyncClient, Client
from tests.daemon import Daemon


def test_a_life_through_the_blocking_client(daemon: Daemon) -> None:
    name = f"sdk-{os.urandom(4).hex()}"
    with Client(f"unix://{daemon.socket}") as client:
        made = client.instances.create({"Image": "busybox", "Cmd": ["sh", "-c", "echo hi; exit 3"]}, name=name)
        try:
            with pytest.raises(Conflict):
                client.instances.create({"Image": "busybox"}, name=name)
            exited = client.instances.open_wait(made["Id"], condition="next-exit")
            client.instances.start(name)
            assert exited.reply().json()["StatusCode"] == 3
            with client.instances.open_logs(name) as logs:
                assert list(logs.frames()) == [(1, b"hi\n")]
        finally:
            client.instances.remove(name, force=True)
        with pytest.raises(NotFound):
            client.instances.get(name)


async def test_many_at_once_through_the_asyncio_client(daemon: Daemon) -> None:
    client = AsyncClient(f"unix://{daemon.socket}")

    async def one(number: int) -> int:
        made = await client.instances.create(
            {"Image": "busybox", "Cmd": ["sh", "-c", f"exit {number}"], "HostConfig": {"NetworkMode": "none"}}
        )
        await client.instances.start(made["Id"])
        code = (await client.instances.wait(made["Id"]))["StatusCode"]
        await client.instances.remove(made["Id"])
        return code

    assert await asyncio.gather(*(one(number) for number in range(8))) == list(range(8))
