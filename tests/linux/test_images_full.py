"""A store on a disk that is too small: it says so, loses nothing, and works again after room was made."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import enisle.images.store

_PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from enisle.errors import Exhausted, Invalid
from enisle.images.store import LocalImageStore
from enisle.linux.mounts import mount
from enisle.model.image import ImageConfig
from tests.contracts.images_support import layer_tar, pieces

async def add(store, name, data):
    tar = layer_tar({"f": data})
    return await store.import_tar(pieces(tar), reference=name, config=ImageConfig(), message="", platform=None)

async def main():
    root = Path(sys.argv[1])
    mount("tmpfs", str(root), "tmpfs", 0, "size=160m")
    store = await LocalImageStore.open(root / "images")
    kept = await add(store, "kept", b"1" * 1000)
    for size in (200 << 20, 90 << 20):
        try:
            await add(store, "large", os.urandom(size))
        except (Exhausted, Invalid) as error:
            assert "no space" in str(error) or "limit of" in str(error), error
            print(type(error).__name__)
        else:
            print("fits")
        left = [p for n in ("ingest", "staging") for p in (root / "images" / n).iterdir()]
        assert left == [], left
    assert [image.id for image in await store.all()][0] == kept
    await store.remove(kept, prune_parents=True)
    await add(store, "again", b"2" * 1000)
    await store.close()

asyncio.run(main())
"""


async def test_a_full_disk(tmp_path: Path) -> None:
    sources = Path(enisle.images.store.__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", sys.executable, "-c", _PROGRAM, str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{sources}:{Path(__file__).parents[2]}"},
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert output.split()[0] in (b"Exhausted", b"Invalid")
