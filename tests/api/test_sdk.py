"""The Python client against a real daemon."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
from pathlib import Path

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


def test_the_program_in_the_readme_runs(daemon: Daemon) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    program = readme.partition("```python\n")[2].partition("```")[0]
    here = program.replace("debian:12", "busybox").replace(', "HostConfig": {"Runtime": "vm"}', "")
    assert here.count("busybox") == 1 and "vm" not in here
    done = subprocess.run(
        [sys.executable, "-c", here],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "ENISLE_HOST": f"unix://{daemon.socket}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"{platform.release()}\n", "")


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
