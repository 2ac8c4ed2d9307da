"""Volumes' content on fakes: what is left when something fails or is cut short, and who stands in the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from enisle.engine.volume_options import backing_of, check, filesystem_of, parse_size
from enisle.engine.volumes import PREFIX
from enisle.errors import Conflict, Internal, Invalid, NotFound, StartFailed
from enisle.formats.records import encode
from enisle.model.instance import Mount, MountKind
from enisle.model.volume import Backing
from tests.unit.engine.conftest import Bench


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


def data(bench: Bench, name: str) -> Path:
    return bench.root / "data" / "volumes" / name / "_data"


async def test_import_replaces_all_or_nothing(bench: Bench) -> None:
    await bench.engine.volumes.create("vol")
    (data(bench, "vol") / "file").write_text("old")
    copies = bench.engine.volume_copies
    bench.volume_files.failure = Internal("the disk is on fire")
    with pytest.raises(Internal, match="on fire"):
        await copies.import_tar("vol", pieces(b"new"), replaces=True)
    with pytest.raises(Internal, match="on fire"):
        await copies.import_tar("other", pieces(b"new"))
    assert (data(bench, "vol") / "file").read_text() == "old"
    assert [path.name for path in (bench.root / "data" / "volumes").rglob("*")] == ["vol", "_data", "file"]
    bench.volume_files.failure = None
    await copies.import_tar("vol", pieces(b"new"), replaces=True)
    assert (data(bench, "vol") / "file").read_text() == "new"
    with pytest.raises(Conflict, match="already exists"):
        await copies.import_tar("vol", pieces(b"new"))


async def test_running_instances_keep_their_volume_from_being_replaced(bench: Bench) -> None:
    mount = Mount(kind=MountKind.VOLUME, target="/v", source="vol")
    record, _running = await bench.run("user", mounts=(mount,))
    copies = bench.engine.volume_copies
    await copies.snapshot("vol", "snap")
    with pytest.raises(Conflict, match=rf"restore vol: volume is in use - \[{record.id}\]"):
        await copies.restore("vol", "snap")
    await bench.reopen()
    copies = bench.engine.volume_copies
    with pytest.raises(Conflict):
        await copies.restore("vol", "snap")
    await bench.engine.instances.kill(record.id)
    await bench.engine.instances.wait(record.id)
    await copies.restore("vol", "snap")
    with pytest.raises(Conflict, match="rename vol: volume is in use"):
        await copies.rename("vol", "new")


async def test_mounted_volumes_go_with_their_last_user(bench: Bench) -> None:
    await bench.engine.volumes.create("tmp", options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m"})
    mount = Mount(kind=MountKind.VOLUME, target="/v", source="tmp")
    record, _running = await bench.run("user", mounts=(mount,))
    assert bench.volume_files.mounted["tmp"].options == ("size=1m",)
    await bench.reopen()
    assert list(bench.volume_files.mounted) == ["tmp"]
    await bench.engine.instances.remove(record.id, force=True)
    assert bench.volume_files.mounted == {}


async def test_what_cannot_be_mounted_fails_the_start(bench: Bench) -> None:
    await bench.engine.volumes.create("nfs", options={"type": "nfs", "device": ":/x"})
    record = await bench.create("user", mounts=(Mount(kind=MountKind.VOLUME, target="/v", source="nfs"),))
    bench.volume_files.failure = Internal("failed to mount local volume: mount :/x: no such device")
    with pytest.raises(StartFailed, match=r"error while mounting volume '.*/nfs/_data': failed to mount"):
        await bench.engine.instances.start(record.id)
    assert bench.engine.volumes.storage.used_by("nfs") == set()


async def test_what_was_cut_short_is_swept(bench: Bench) -> None:
    volume = await bench.engine.volumes.create("vol")
    await bench.engine.volume_copies.snapshot("vol", "kept")
    root = bench.root / "data" / "volumes"
    for path in ("vol/.new-1/_data", "vol/snapshots/stray/_data", "half/_data"):
        (root / path).mkdir(parents=True)
    renamed = replace(volume, name="new", mountpoint=str(root / "new" / "_data"), moving_from="old")
    (root / "old" / "_data").mkdir(parents=True)
    (root / "old" / "_data" / "file").write_text("kept")
    await bench.store.commit({PREFIX + "new": encode(renamed)})
    await bench.reopen()
    assert sorted(path.name for path in root.iterdir()) == ["new", "vol"]
    assert (data(bench, "new") / "file").read_text() == "kept"
    assert [path.name for path in (root / "vol" / "snapshots").iterdir()] == ["kept"]
    assert not (root / "vol" / ".new-1").exists()


async def test_what_is_kept_elsewhere_has_no_snapshots(bench: Bench) -> None:
    await bench.engine.volumes.create("tmp", options={"type": "tmpfs", "device": "tmpfs"})
    copies = bench.engine.volume_copies
    with pytest.raises(Invalid, match="kept elsewhere"):
        await copies.snapshot("tmp", "x1")
    with pytest.raises(Invalid, match="has no size limit"):
        await copies.resize("tmp", "1g")
    with pytest.raises(NotFound, match="get gone: no such volume"):
        await copies.clone("gone", "new")


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("1", 1), ("1k", 1024), ("1.5m", 3 << 19), ("2GB", 2 << 30), ("1 TiB", 1 << 40)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1x", "1e9", "99999p"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(Invalid, match="invalid size"):
        parse_size(text)


def test_backings() -> None:
    bind = {"type": "none", "o": "ro,bind", "device": "/x"}
    check(bind)
    assert backing_of(bind, quotas=True) is Backing.BIND
    assert backing_of({"size": "1g"}, quotas=True) is Backing.PROJECT
    assert backing_of({"size": "1g"}, quotas=False) is Backing.IMAGE
    assert backing_of({"size": "0"}, quotas=True) is Backing.DIRECTORY
    nfs = {"type": "nfs", "o": "addr=10.0.0.1,,rw", "device": ":/x"}
    assert backing_of(nfs, quotas=True) is Backing.MOUNT
    assert filesystem_of(nfs).options == ("addr=10.0.0.1", "rw")
