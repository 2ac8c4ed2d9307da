"""A state store on a disk that others have filled: records go, and change, for as long as it takes."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import enisle.state.sqlite

_PROGRAM = """
import asyncio, os, subprocess, sys
from pathlib import Path
from enisle.errors import Exhausted
from enisle.state.sqlite import CHECKPOINT_AFTER_S, SqliteStore

COUNT = 300

def fill(root):
    with open(root / "fill", "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            os.fsync(file.fileno())

async def refused(store):
    n = 0
    while n < 100000:
        try:
            await store.commit({f"new/{n}": b"x" * 3000})
        except Exhausted as error:
            assert "disk is full. Free some space" in str(error), error
            return n
        n += 1

async def main():
    disk, root = Path(sys.argv[1], "disk"), Path(sys.argv[1], "root")
    disk.write_bytes(b"")
    os.truncate(disk, 32 << 20)
    root.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, root], check=True)
    path = root / "state.db"
    store = SqliteStore(path)
    await store.commit({f"old/{n}": b"x" * 3000 for n in range(COUNT)})
    for closed in (False, True):
        if closed:
            await store.close()
        fill(root)
        if closed:
            store = SqliteStore(path)
            fill(root)
        for n in range(1200):  # longer than the log
            await store.commit({f"old/{n % 100}": (b"changed" if closed else b"c") * 400})
        new = await refused(store)
        for n in range(100, 150):
            await store.commit({}, deletes=[f"old/{n + 50 * closed}"])
        await asyncio.sleep(CHECKPOINT_AFTER_S * 1.2)
        await store.commit({}, deletes=[f"new/{n}" for n in range(new)])
    await store.close()
    os.unlink(root / "fill")
    os.sync()
    store = SqliteStore(path)
    assert not store.restored
    old = await store.scan("old/")
    assert len(old) == COUNT - 100, len(old)
    assert sum(value == b"changed" * 400 for _, value, _ in old) == 100
    assert await store.scan("new/") == []
    assert await refused(store) > 500
    await store.close()
    subprocess.run(["umount", root], check=True)

asyncio.run(main())
"""


async def test_a_full_disk(tmp_path: Path) -> None:
    sources = Path(enisle.state.sqlite.__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", sys.executable, "-c", _PROGRAM, str(tmp_path)),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(sources)},
    )
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()
