"""Following a log with the kernel's own notifications."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from enisle.daemon.filewatch import watch_directory
from enisle.engine.logs import read_log


def line(text: str) -> str:
    return json.dumps({"log": f"{text}\n", "stream": "stdout", "time": "2024-01-01T00:00:00.5Z"}) + "\n"


async def test_a_log_is_followed_over_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "x-json.log"
    path.write_text(line("one"))
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    reader = read_log(path, changes=watch_directory(tmp_path), ended=end)
    assert (await anext(reader)).data == b"one\n"
    following = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    with path.open("a") as file:
        file.write(line("two"))
    assert (await asyncio.wait_for(following, 5)).data == b"two\n"
    following = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    path.rename(tmp_path / "x-json.log.1")
    path.write_text(line("three"))
    assert (await asyncio.wait_for(following, 5)).data == b"three\n"
    end.set_result(None)
    assert [record async for record in reader] == []
