"""Layers that are unpacked while their archive still arrives, before it is known which image they are for."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from enisle.errors import Invalid
from enisle.images.intake import Intake
from enisle.images.store import LocalImageStore
from tests.contracts.images_support import MadeImage, Messages, digest_of, make_image, pieces

LARGE = {f"file{number}": os.urandom(40_000) for number in range(10)}
OTHER = {"other": os.urandom(300_000)}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalImageStore]:
    opened = await LocalImageStore.open(tmp_path / "images")
    yield opened
    await opened.close()


def archive(image: MadeImage, members: dict[str, bytes], layers: list[str]) -> bytes:
    """A docker-archive: members first, then what tells which of them are layers."""
    entry = {"Config": "config.json", "RepoTags": ["app:1"], "Layers": layers}
    members = {**members, "config.json": image.config, "manifest.json": json.dumps([entry]).encode()}
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def two_layers(*, compression: str = "") -> tuple[MadeImage, bytes]:
    image = make_image([LARGE, OTHER], compression=compression)
    names = [f"{number}/layer.tar" for number in range(2)]
    return image, archive(image, {name: image.blobs[one] for name, one in zip(names, image.layers, strict=True)}, names)


def left_over(tmp_path: Path) -> list[Path]:
    return [path for name in ("ingest", "staging") for path in (tmp_path / "images" / name).iterdir()]


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
async def test_layers_are_unpacked_and_kept_compressed(
    store: LocalImageStore, tmp_path: Path, compression: str
) -> None:
    image, data = two_layers(compression=compression)
    assert await store.load(pieces(data), progress=Messages()) == ["app:1"]
    top, bottom = await store.layers((await store.get("app:1")).id)
    assert (bottom / "file3").read_bytes() == LARGE["file3"]
    assert (top / "other").read_bytes() == OTHER["other"]
    record = store._parts.index.images[image.id]
    assert [layer.media_type.rpartition("+")[2] for layer in record.layers] == [compression or "gzip"] * 2
    assert left_over(tmp_path) == []


async def test_one_member_may_be_several_layers(store: LocalImageStore, tmp_path: Path) -> None:
    image = make_image([LARGE, OTHER, LARGE], compression="")
    members = {"a/layer.tar": image.blobs[image.layers[0]], "b/layer.tar": image.blobs[image.layers[1]]}
    data = archive(image, members, ["a/layer.tar", "b/layer.tar", "a/layer.tar"])
    assert await store.load(pieces(data), progress=Messages()) == ["app:1"]
    layers = await store.layers((await store.get("app:1")).id)
    assert (layers[0] / "file1").read_bytes() == (layers[2] / "file1").read_bytes() == LARGE["file1"]
    assert left_over(tmp_path) == []


async def test_known_layers_are_not_unpacked_again(store: LocalImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    image, data = two_layers()
    await store.load(pieces(data), progress=Messages())
    async with await store.save(["app:1"]) as stream:
        saved = b"".join([piece async for piece in stream])
    by_content = {f"{digest_of(image.blobs[one])[7:]}.tar": image.blobs[one] for one in image.layers}

    async def refused(*_: object, **__: object) -> Intake:
        raise AssertionError("it is unpacked again")

    monkeypatch.setattr(Intake, "open", refused)
    assert await store.load(pieces(saved), progress=Messages()) == ["app:1"]
    assert await store.load(pieces(archive(image, by_content, list(by_content))), progress=Messages()) == ["app:1"]


async def test_only_damage_that_concerns_an_image_counts(store: LocalImageStore, tmp_path: Path) -> None:
    image = make_image([LARGE])
    sound = image.blobs[image.layers[0]]
    damaged = sound[:200_000] + bytes(1000) + sound[201_000:]
    data = archive(image, {"odd.tar.gz": damaged, "layer": sound}, ["layer"])
    assert await store.load(pieces(data), progress=Messages()) == ["app:1"]
    await store.remove((await store.get("app:1")).id, prune_parents=True)
    for bad in (damaged, sound[:-100], make_image([OTHER]).blobs[make_image([OTHER]).layers[0]]):
        with pytest.raises(Invalid):
            await store.load(pieces(archive(image, {"layer": bad}, ["layer"])), progress=Messages())
    assert await store.all() == []
    assert left_over(tmp_path) == []
    assert list((tmp_path / "images/blobs/sha256").iterdir()) == []


async def test_clients_that_go_hold_nothing(store: LocalImageStore, tmp_path: Path) -> None:
    """More of them than jobs may wait for their senders."""
    _, data = two_layers()
    begun = asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        yield data[:200_000]
        begun.set()
        await asyncio.sleep(3600)

    async def breaks() -> AsyncIterator[bytes]:
        yield data[:300_000]
        raise ConnectionResetError(errno.ECONNRESET, "gone")

    for _ in range(10):
        begun.clear()
        loading = asyncio.create_task(store.load(stalls(), progress=Messages()))
        await begun.wait()
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        with pytest.raises(ConnectionResetError):
            await store.load(breaks(), progress=Messages())
    assert left_over(tmp_path) == []
    assert await store.load(pieces(data), progress=Messages()) == ["app:1"]


async def test_prune_takes_nothing_from_a_load(store: LocalImageStore) -> None:
    _, data = two_layers()

    async def interrupted() -> AsyncIterator[bytes]:
        for begin in range(0, len(data), 100_000):
            yield data[begin : begin + 100_000]
            await store.prune(keep=lambda _: True)

    assert await store.load(interrupted(), progress=Messages()) == ["app:1"]
