"""The image store by itself: names, archives, images made here, removal, disks, crashes."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import stat
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import enisle.images.store
from enisle.contracts import ImageStore, Removed
from enisle.errors import Conflict, Internal, Invalid, NotFound
from enisle.images.store import LocalImageStore
from enisle.linux.disk_usage import allocated_bytes
from enisle.model.ids import ImageId
from enisle.model.image import ImageConfig, Platform
from tests.contracts.images_support import (
    Messages,
    descriptor,
    digest_of,
    layer_tar,
    make_image,
    make_index,
    pieces,
    run,
)

ROOT = {"bin/": b"", "bin/sh": b"#!" * 5000, "etc/": b"", "etc/hostname": b"x\n"}
CONFIG = ImageConfig(command=("sh",), env=("A=b",), labels={"enisle.x": "y", "z": "1"}, exposed_ports=("80/tcp",))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalImageStore]:
    opened = await LocalImageStore.open(tmp_path / "images")
    yield opened
    await opened.close()


async def add(store: LocalImageStore, reference: str = "app:1", files: dict[str, bytes] = ROOT) -> ImageId:
    return await store.import_tar(
        pieces(layer_tar(files)), reference=reference, config=CONFIG, message="made", platform=None
    )


async def add_upon(store: LocalImageStore, parent: ImageId, reference: str, files: dict[str, bytes]) -> ImageId:
    return await store.commit(
        parent,
        pieces(layer_tar(files)),
        reference=reference,
        config=CONFIG,
        author="me",
        message="more",
        created_by="sh",
    )


async def archive_of(store: LocalImageStore, *references: str) -> bytes:
    async with await store.save(references) as stream:
        return b"".join([piece async for piece in stream])


async def test_it_is_an_image_store(store: LocalImageStore) -> None:
    seen_as: ImageStore = store
    assert await seen_as.all() == []


# --- names -----------------------------------------------------------------------------------------------------------


async def test_found_by_all_its_names(store: LocalImageStore) -> None:
    image = await add(store, "app:1")
    for text in ("app:1", "docker.io/library/app:1", image, image[7:], image[7:19], image[:20]):
        assert (await store.get(text)).id == image
    found = await store.get("app:1")
    assert (found.repo_tags, found.repo_digests, found.size_bytes) == (("app:1",), (), 10002)
    assert found.config.labels == {"z": "1"}
    for text in ("app", "app:2", "other:1", "sha256:" + "0" * 64, "UPPER", "a//b"):
        with pytest.raises(NotFound, match="No such image: "):
            await store.get(text)
    with pytest.raises(NotFound, match="does not provide the specified platform"):
        await store.get("app:1", Platform(architecture="s390x"))


async def test_tag_moves_a_name_and_untag_drops_it(store: LocalImageStore) -> None:
    one, two = await add(store, "app:1"), await add(store, "app:2", {"x": b"1"})
    await store.tag(two, "app:1")
    assert (await store.get("app:1")).id == two
    assert (await store.get(one)).repo_tags == ()
    await store.tag(two, "localhost:5000/a/b")
    assert (await store.get(two)).repo_tags == ("app:1", "app:2", "localhost:5000/a/b:latest")
    assert await store.untag("app:2") == [Removed(untagged="app:2")]
    with pytest.raises(NotFound):
        await store.untag("app:2")
    with pytest.raises(Invalid, match="invalid reference format"):
        await store.tag(two, "a b")
    with pytest.raises(Invalid, match="digest reference"):
        await store.tag(two, "app@sha256:" + "0" * 64)


# --- images made here ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["", "gzip", "bz2", "xz"])
async def test_import_in_every_compression(store: LocalImageStore, compression: str) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode={"": "w", "gzip": "w:gz"}.get(compression, f"w:{compression}")) as tar:
        info = tarfile.TarInfo("f")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    image = await store.import_tar(
        pieces(sink.getvalue(), 100), reference="", config=ImageConfig(), message="m", platform=None
    )
    (layer,) = await store.layers(image)
    assert (layer / "f").read_bytes() == b"hello"
    assert (await store.get(image)).comment == "m"


async def test_commit_adds_a_layer_and_history(store: LocalImageStore) -> None:
    base = await add(store)
    image = await add_upon(store, base, "app:2", {"new": b"12345"})
    found = await store.get(image)
    assert (found.parent, len(found.diff_ids), found.author, found.comment) == (base, 2, "me", "more")
    rows = await store.history(image)
    assert [(row[0].created_by, row[1], row[2], row[3]) for row in rows] == [
        ("sh", image, 5, ("app:2",)),
        ("", "<missing>", 10002, ()),
    ]
    top, bottom = await store.layers(image)
    assert (top / "new").exists()
    assert (bottom / "bin/sh").exists()


async def test_an_empty_commit_adds_no_layer(store: LocalImageStore) -> None:
    base = await add(store)
    image = await add_upon(store, base, "app:2", {})
    assert len((await store.get(image)).diff_ids) == 1
    assert (await store.history(image))[0][0].empty_layer


async def test_directories_a_layer_takes_for_granted_look_as_below(store: LocalImageStore) -> None:
    base = await add(store, files={"tmp/": b"", "home/": b""})
    (lower,) = await store.layers(base)
    (lower / "tmp").chmod(0o1777)
    os.chown(lower / "home", 7, 8)
    image = await add_upon(store, base, "", {"tmp/x": b"", "home/me/file": b""})
    top = (await store.layers(image))[0]
    assert stat.S_IMODE((top / "tmp").stat().st_mode) == 0o1777
    assert ((top / "home").stat().st_uid, (top / "home").stat().st_gid) == (7, 8)
    assert stat.S_IMODE((top / "home/me").stat().st_mode) == 0o755


async def test_broken_streams_leave_nothing(store: LocalImageStore, tmp_path: Path) -> None:
    async def fails() -> AsyncIterator[bytes]:
        yield layer_tar(ROOT)[:2000]
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        await store.import_tar(fails(), reference="x", config=CONFIG, message="", platform=None)
    with pytest.raises(Invalid):
        await store.import_tar(pieces(b"no tar" * 500), reference="x", config=CONFIG, message="", platform=None)
    with pytest.raises(Invalid):
        await store.import_tar(
            pieces(gzip.compress(layer_tar(ROOT))[:-20]), reference="x", config=CONFIG, message="", platform=None
        )
    top = tmp_path / "images"
    assert [list((top / name).iterdir()) for name in ("ingest", "staging", "layers", "blobs/sha256")] == [[]] * 4


# --- archives --------------------------------------------------------------------------------------------------------


async def test_saved_images_load_with_names_and_ids(store: LocalImageStore, tmp_path: Path) -> None:
    base = await add(store, "app:1")
    image = await add_upon(store, base, "app:2", {"new": b"1"})
    other = await add(store, "other:latest", {"o": b"1"})
    data = await archive_of(store, "app", "other", base)
    fresh = await LocalImageStore.open(tmp_path / "fresh")
    try:
        said = Messages()
        assert sorted(await fresh.load(pieces(data), progress=said)) == ["app:1", "app:2", "other:latest"]
        assert {found.id for found in await fresh.all()} == {base, image, other}
        assert await fresh.load(pieces(gzip.compress(data)), progress=said) == await fresh.load(
            pieces(data), progress=said
        )
        assert (await fresh.history(image))[1][2] == 10002
    finally:
        await fresh.close()


async def test_an_image_saved_by_id_has_no_name(store: LocalImageStore, tmp_path: Path) -> None:
    image = await add(store, "app:1")
    data = await archive_of(store, image)
    await store.remove(image, prune_parents=True)
    assert await store.load(pieces(data), progress=Messages()) == [image]
    assert (await store.get(image)).repo_tags == ()


def docker_archive(*, links: bool = False, names: tuple[str, ...] = ("old:1",)) -> tuple[bytes, str]:
    """As Docker wrote before 25: directories with layer.tar, manifest.json last; shared layers as links."""
    image = make_image([{"a": b"1"}, {"b": b"2"}], compression="")
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:

        def put(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        for number, layer in enumerate(image.layers):
            put(f"{number}/VERSION", b"1.0")
            put(f"{number}/layer.tar", image.blobs[layer])
        if links:
            info = tarfile.TarInfo("2/layer.tar")
            info.type, info.linkname = tarfile.SYMTYPE, "../1/layer.tar"
            tar.addfile(info)
        put("config.json", image.config)
        layers = ["0/layer.tar", "2/layer.tar" if links else "1/layer.tar"]
        put("manifest.json", json.dumps([{"Config": "config.json", "RepoTags": names, "Layers": layers}]).encode())
    return sink.getvalue(), image.id


@pytest.mark.parametrize("links", [False, True])
async def test_old_docker_archives(store: LocalImageStore, links: bool) -> None:
    data, image = docker_archive(links=links)
    assert await store.load(pieces(data), progress=Messages()) == ["old:1"]
    assert (await store.get("old:1")).id == image


async def test_archives_of_skopeo(store: LocalImageStore, tmp_path: Path) -> None:
    image = await add_upon(store, await add(store, ""), "app:1", {"new": b"1" * 1000})
    ours = tmp_path / "ours.tar"
    ours.write_bytes(await archive_of(store, "app:1"))
    for form in ("oci-archive", "docker-archive"):
        theirs = tmp_path / f"{form}.tar"
        await run(
            [
                "skopeo",
                "copy",
                "--insecure-policy",
                f"docker-archive:{ours}",
                f"{form}:{theirs}:docker.io/copy/{form}:2",
            ]
        )
        names = await store.load(pieces(theirs.read_bytes()), progress=Messages())
        assert names == [f"copy/{form}:2"]
        found = await store.get(names[0])
        assert found.diff_ids == (await store.get(image)).diff_ids


async def test_an_oci_layout_with_an_index_inside(store: LocalImageStore) -> None:
    images = {f"linux/{name}": make_image([{"arch": name.encode()}], architecture=name) for name in ("amd64", "arm64")}
    inner = make_index(images)
    annotations = {"io.containerd.image.name": "docker.io/library/multi:3"}
    top = json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [descriptor(inner, "application/vnd.oci.image.index.v1+json", annotations=annotations)],
        }
    )
    members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": top.encode()}
    blobs = [inner] + [blob for image in images.values() for blob in (image.manifest, *image.blobs.values())]
    members |= {"blobs/" + digest_of(blob).replace(":", "/"): blob for blob in blobs}
    assert await store.load(pieces(layer_tar(members)), progress=Messages()) == ["multi:3"]
    assert (await store.get("multi:3")).id == images["linux/amd64"].id


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"etc/passwd": b"root"},
        {"manifest.json": b"[{}]"},
        {"manifest.json": b"{}"},
        {"manifest.json": b"[" * 10000},
        {"manifest.json": b'[{"Config": "../../../etc/passwd", "Layers": []}]'},
        {"manifest.json": b'[{"Config": "c", "Layers": ["l"]}]', "c": b'{"rootfs":{"type":"layers","diff_ids":[]}}'},
        {"oci-layout": b'{"imageLayoutVersion":"9"}', "index.json": b'{"schemaVersion":2,"manifests":[]}'},
        {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": b'{"layers":[],"manifests":[]}'},
    ],
    ids=lambda members: ",".join(members) or "empty",
)
async def test_what_is_no_image_archive(store: LocalImageStore, tmp_path: Path, members: dict[str, bytes]) -> None:
    with pytest.raises(Invalid):
        await store.load(pieces(layer_tar(members)), progress=Messages())
    assert list((tmp_path / "images/ingest").iterdir()) == []
    assert await store.all() == []


async def test_a_layer_that_is_not_what_the_config_says_is_refused(store: LocalImageStore, tmp_path: Path) -> None:
    data, _ = docker_archive()
    with pytest.raises(Invalid, match="but the image's config says"):
        await store.load(pieces(data.replace(b"1" + bytes(511), b"9" + bytes(511))), progress=Messages())
    assert await store.all() == []
    assert list((tmp_path / "images/ingest").iterdir()) == []


# --- removal ---------------------------------------------------------------------------------------------------------


async def test_remove_keeps_what_others_need(store: LocalImageStore, tmp_path: Path) -> None:
    base = await add(store, "app:1")
    image = await add_upon(store, base, "app:2", {"new": b"1"})
    sizes = store.layer_sizes()
    assert sizes.bytes_without([]) == 10003 and sizes.bytes_without([image]) == 10002
    assert {one: sizes.bytes_of(one) for one in (base, image)} == {base: 10002, image: 10003}
    assert sizes.shared_bytes([base, image]) == {base: 10002, image: 10002}
    assert sizes.bytes_beyond(image, base) == 1
    removed = await store.remove(image, prune_parents=True)
    assert [item for item in removed if item.untagged] == [Removed(untagged="app:2")]
    assert next(item.deleted for item in removed if item.deleted) == image
    assert len([item for item in removed if item.deleted]) == 2  # the image and its own layer
    assert (await store.layers(base))[0].is_dir()
    await store.remove(base, prune_parents=True)
    top = tmp_path / "images"
    assert [list((top / name).iterdir()) for name in ("staging", "layers", "blobs/sha256")] == [[]] * 3


async def test_remove_takes_unnamed_parents_along(store: LocalImageStore) -> None:
    base = await add(store, "")
    image = await add_upon(store, base, "app:2", {"new": b"1"})
    await store.remove(image, prune_parents=True)
    assert await store.all() == []


async def test_prune(store: LocalImageStore, tmp_path: Path) -> None:
    kept = await add(store, "app:1")
    gone = await add(store, "", {"x": b"1" * 500})
    (tmp_path / "images/ingest/rubbish").write_bytes(b"x" * 100)
    before, use = allocated_bytes(tmp_path / "images"), await store.usage()
    assert before - sum(use.pieces.values()) < 64 << 10  # the record, and the directories
    removed, freed = await store.prune(keep=lambda image: bool(image.repo_tags))
    assert Removed(deleted=gone) in removed
    assert freed == use.bytes_beyond(gone, kept) + use.pieces["ingest/rubbish"]
    assert before - allocated_bytes(tmp_path / "images") == freed
    assert [image.id for image in await store.all()] == [kept]


# --- disks -----------------------------------------------------------------------------------------------------------


async def test_a_disk_shows_what_the_overlay_shows(store: LocalImageStore, tmp_path: Path) -> None:
    base = await add(store, files=ROOT | {"gone": b"1", "d/": b"", "d/old": b"1"})
    image = await add_upon(store, base, "app:2", {"new": b"1", ".wh.gone": b"", "d/": b"", "d/.wh..wh..opq": b""})
    disk = await store.disk(image)
    assert disk == await store.disk(image)
    assert disk.read_bytes()[1024:1028] == (0xE0F5E1E2).to_bytes(4, "little")
    await run(["fsck.erofs", f"--extract={tmp_path / 'out'}", str(disk)])
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*"))
    assert found == ["bin", "bin/sh", "d", "etc", "etc/hostname", "new"]
    alone = await store.disk(base)
    assert alone != disk
    await store.remove(image, prune_parents=False)
    assert not disk.exists()
    assert [path.name for path in (tmp_path / "images/disks").iterdir()] == [alone.name]


# --- crashes ---------------------------------------------------------------------------------------------------------

_LOADER = """
import asyncio, sys
from pathlib import Path
from enisle.images.store import LocalImageStore

async def pieces(data):
    for at in range(0, len(data), 4096):
        yield data[at:at + 4096]

async def main():
    store = await LocalImageStore.open(Path(sys.argv[1]))
    data = Path(sys.argv[2]).read_bytes()
    print("ready", flush=True)
    while True:
        await store.load(pieces(data), progress=lambda _: print(".", flush=True))
        print(".", flush=True)
        for image in await store.all():
            await store.remove(image.id, prune_parents=True)
            print(".", flush=True)

asyncio.run(main())
"""


def _with_sources() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(enisle.images.store.__file__).parents[2])}


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 13])
async def test_killed_at_any_moment_it_opens_whole(store: LocalImageStore, tmp_path: Path, steps: int) -> None:
    await add_upon(store, await add(store, "app:1"), "app:2", {"new": b"1" * 100000})
    archive = tmp_path / "archive.tar"
    archive.write_bytes(await archive_of(store, "app"))
    command = [sys.executable, "-c", _LOADER, str(tmp_path / "victim"), str(archive)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=_with_sources())
    assert process.stdout is not None
    for _ in range(steps):
        await process.stdout.readline()
    process.kill()
    await process.wait()
    victim = await LocalImageStore.open(tmp_path / "victim")
    try:
        for image in await victim.all():
            assert all(layer.is_dir() for layer in await victim.layers(image.id))
            await archive_of(victim, image.id)
        await victim.load(pieces(archive.read_bytes()), progress=Messages())
        await victim.prune(keep=lambda _: False)
    finally:
        await victim.close()
    top = tmp_path / "victim"
    left = [path for name in ("ingest", "staging", "layers", "blobs/sha256") for path in (top / name).iterdir()]
    assert left == []


async def test_one_process_at_a_time(store: LocalImageStore, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="in use by another daemon"):
        await LocalImageStore.open(tmp_path / "images")


async def test_damaged_records_are_not_taken_for_an_empty_store(tmp_path: Path) -> None:
    store = await LocalImageStore.open(tmp_path / "images")
    await add(store)
    await store.close()
    for name in ("index.json", "index.copy"):
        (tmp_path / "images" / name).write_bytes(b'{"generation": 1, "ima')
    with pytest.raises(Internal, match="cannot be read"):
        await LocalImageStore.open(tmp_path / "images")
    (tmp_path / "images/index.json").write_bytes(b'{"generation": 99}')
    with pytest.raises(Internal, match="newer version"):
        await LocalImageStore.open(tmp_path / "images")
    assert list((tmp_path / "images/layers").iterdir())


@pytest.mark.parametrize("damage", ["flipped", "flipped in a name", "cut", "emptied", "lost"])
async def test_damaged_records_are_taken_from_their_copy(tmp_path: Path, damage: str) -> None:
    store = await LocalImageStore.open(tmp_path / "images")
    image = await add(store, "app:1")
    await store.tag(image, "app:2")
    await store.close()
    path = tmp_path / "images/index.json"
    whole = path.read_bytes()
    match damage:
        case "flipped":
            path.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
        case "flipped in a name":
            path.write_bytes(whole.replace(b"app:2", b"apq:2"))
        case "cut":
            path.write_bytes(whole[:-20])
        case "emptied":
            path.write_bytes(b"")
        case "lost":
            path.unlink()
    again = await LocalImageStore.open(tmp_path / "images")
    try:
        assert (await again.get("app:2")).repo_tags == ("app:1", "app:2")
        await again.tag(image, "app:3")
        assert b"app:3" in path.read_bytes()
    finally:
        await again.close()


async def test_the_store_is_closed_to_other_users(store: LocalImageStore, tmp_path: Path) -> None:
    await add(store)
    assert stat.S_IMODE((tmp_path / "images").stat().st_mode) == 0o700


# --- bootstrap -------------------------------------------------------------------------------------------------------


async def test_bootstrap_of_busybox_is_reproducible(store: LocalImageStore, tmp_path: Path) -> None:
    image = await store.bootstrap("busybox", progress=Messages())
    assert image.repo_tags == ("busybox:latest",)
    (layer,) = await store.layers(image.id)
    assert await run([str(layer / "bin/sh"), "-c", "echo hello"]) == b"hello\n"
    assert (layer / "bin/ls").stat().st_ino == (layer / "bin/busybox").stat().st_ino
    assert stat.S_IMODE((layer / "tmp").stat().st_mode) == 0o1777
    other = await LocalImageStore.open(tmp_path / "other")
    try:
        assert (await other.bootstrap("busybox", progress=Messages())).id == image.id
    finally:
        await other.close()
    assert list((tmp_path / "images/staging").iterdir()) == []


async def test_bootstrap_of_something_unknown(store: LocalImageStore) -> None:
    with pytest.raises(NotFound, match="no recipe"):
        await store.bootstrap("fedora:40", progress=Messages())
