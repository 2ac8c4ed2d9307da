"""Pulls from a registry that lies, breaks off, refuses, or sends us elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from enisle.contracts import RegistryAuth
from enisle.errors import Denied, EnisleError, Exhausted, Invalid, NotFound, Unauthenticated, Unavailable
from enisle.formats.oci import OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from enisle.images.registry.endpoints import RegistrySettings
from enisle.images.store import LocalImageStore
from enisle.model.image import Platform
from tests.contracts.images_support import (
    FakeRegistry,
    MadeImage,
    Messages,
    compress,
    digest_of,
    hang_up_after,
    layer_tar,
    make_image,
    ranged,
    serving,
)

BIG = bytes(range(256)) * 4096  # a megabyte that gzip cannot make vanish altogether
IMAGE = make_image([{"a": b"1"}, {"big": BIG}], compression="")


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with serving(FakeRegistry()) as served:
        yield served


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalImageStore]:
    opened = await LocalImageStore.open(tmp_path / "images", backoff_s=0.01)
    yield opened
    await opened.close()


async def pull(store: LocalImageStore, registry: FakeRegistry, name: str = "app", **more: object) -> Messages:
    said = Messages()
    auth = more.get("auth")
    assert auth is None or isinstance(auth, RegistryAuth)
    await store.pull(f"{registry.host}/{name}", platform=None, auth=auth, progress=said)
    return said


def leftovers(tmp_path: Path) -> list[str]:
    """What lies in the store besides what belongs there when it is empty."""
    top = tmp_path / "images"
    return sorted(
        str(path.relative_to(top)) for name in ("blobs/sha256", "layers", "staging") for path in (top / name).iterdir()
    )


# --- what a good pull looks like -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("compression", "docker"), [("gzip", True), ("gzip", False), ("zstd", False), ("", False)])
async def test_media_types_and_progress(
    store: LocalImageStore, registry: FakeRegistry, compression: str, docker: bool
) -> None:
    image = make_image([{"a": b"1"}, {"b": BIG}], compression=compression, docker=docker)
    registry.add(image)
    said = await pull(store, registry)
    found = await store.get(f"{registry.host}/app")
    assert (found.id, found.manifest) == (image.id, image.digest)
    statuses = said.statuses(image.layers[1].partition(":")[2][:12])
    assert statuses[0] == "Pulling fs layer"
    assert [s for s in statuses if s not in ("Waiting", "Downloading", "Extracting")] == [
        "Pulling fs layer",
        "Verifying Checksum",
        "Download complete",
        "Pull complete",
    ]


async def test_an_index_gives_the_platform_asked_for(store: LocalImageStore, registry: FakeRegistry) -> None:
    images = {
        f"linux/{name}": make_image([{"arch": name.encode()}], architecture=name)
        for name in ("arm64", "amd64", "s390x")
    }
    digest = registry.add_index(images)
    await pull(store, registry)
    found = await store.get(f"{registry.host}/app")
    assert found.id == images["linux/amd64"].id
    assert found.repo_digests == (f"{registry.host}/app@{digest}",)
    arm = Platform(architecture="arm64", variant="v8")
    other = await store.pull(f"{registry.host}/app", platform=arm, auth=None, progress=Messages())
    assert other.id == images["linux/arm64"].id
    with pytest.raises(NotFound, match="no matching manifest for linux/riscv64"):
        await store.pull(
            f"{registry.host}/app", platform=Platform(architecture="riscv64"), auth=None, progress=Messages()
        )


async def test_pull_by_digest(store: LocalImageStore, registry: FakeRegistry) -> None:
    registry.add(IMAGE)
    await pull(store, registry, f"app@{IMAGE.digest}")
    found = await store.get(f"{registry.host}/app@{IMAGE.digest}")
    assert (found.repo_tags, found.repo_digests) == ((), (f"{registry.host}/app@{IMAGE.digest}",))


async def test_eight_pulls_at_once_fetch_each_blob_once(store: LocalImageStore, registry: FakeRegistry) -> None:
    registry.add(IMAGE)
    tasks = [asyncio.create_task(pull(store, registry)) for _ in range(8)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, asyncio.CancelledError) for result in results) == 3
    assert not [result for result in results if isinstance(result, Exception)]
    assert registry.count(IMAGE.layers[1]) == 1
    assert (await store.layers((await store.get(f"{registry.host}/app")).id))[0].joinpath("big").read_bytes() == BIG


# --- lies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("damage", ["flip", "short", "long"])
async def test_wrong_layers_are_never_visible(
    store: LocalImageStore, registry: FakeRegistry, tmp_path: Path, which: int, damage: str
) -> None:
    registry.add(IMAGE)
    blob = IMAGE.blobs[IMAGE.layers[which]]
    wrong = {"flip": blob[:-1500] + b"\xff" + blob[-1499:], "short": blob[:-512], "long": blob + b"x"}[damage]
    registry.blobs[IMAGE.layers[which]] = wrong
    with pytest.raises((Invalid, Unavailable)):
        await pull(store, registry)
    assert await store.all() == []
    assert IMAGE.layers[which].partition(":")[2] not in " ".join(leftovers(tmp_path))
    registry.blobs[IMAGE.layers[which]] = blob
    await pull(store, registry)


async def test_wrong_config_and_manifest(store: LocalImageStore, registry: FakeRegistry) -> None:
    registry.add(IMAGE)
    registry.blobs[IMAGE.id] = IMAGE.config[:-1] + b" "
    with pytest.raises(Invalid, match="config verification failed"):
        await pull(store, registry)
    registry.manifests[IMAGE.digest] = (IMAGE.manifest + b" ", IMAGE.media_type)
    with pytest.raises(Invalid, match="manifest verification failed"):
        await pull(store, registry, f"app@{IMAGE.digest}")


async def test_a_layer_that_is_not_what_the_config_says(
    store: LocalImageStore, registry: FakeRegistry, tmp_path: Path
) -> None:
    other = make_image([{"a": b"other"}, {"big": BIG}], compression="")
    manifest = json.loads(IMAGE.manifest)
    manifest["layers"] = json.loads(other.manifest)["layers"]
    lying = MadeImage(IMAGE.blobs | other.blobs, json.dumps(manifest).encode(), OCI_MANIFEST, IMAGE.config, [])
    registry.add(lying)
    with pytest.raises(Invalid, match="but the image's config says"):
        await pull(store, registry)
    assert leftovers(tmp_path) == []


def manifest_with(**changes: object) -> bytes:
    return json.dumps(json.loads(IMAGE.manifest) | changes).encode()


BAD_MANIFESTS = {
    "both": manifest_with(manifests=[]),
    "neither": b'{"schemaVersion": 2}',
    "wrong type": manifest_with(mediaType=OCI_INDEX),
    "schema 1": b'{"schemaVersion": 1, "fsLayers": []}',
    "no json": b"<html>",
    "list": b"[]",
    "deep": b'{"layers": ' + b"[" * 100 + b"]" * 100 + b"}",
    "very deep": b'{"layers": ' + b"[" * 100000 + b"]" * 100000 + b"}",
    "huge": b'{"x": "' + b"x" * (5 << 20) + b'"}',
    "twice": b'{"schemaVersion": 2, "layers": [], "layers": [], "config": {}}',
    "digest": manifest_with(layers=[{"mediaType": OCI_LAYER, "digest": "sha256:../../../etc/passwd", "size": 1}]),
    "negative": manifest_with(config={"mediaType": "x", "digest": IMAGE.id, "size": -1}),
    "null": manifest_with(config=None),
    "layer type": manifest_with(layers=[{"mediaType": "text/html", "digest": IMAGE.layers[0], "size": 1}] * 2),
    "layers missing": manifest_with(layers=[]),
}


@pytest.mark.parametrize("kind", BAD_MANIFESTS)
async def test_bad_manifests(store: LocalImageStore, registry: FakeRegistry, tmp_path: Path, kind: str) -> None:
    registry.add(IMAGE)
    registry.manifests["latest"] = (BAD_MANIFESTS[kind], "application/octet-stream")
    with pytest.raises(Invalid):
        await pull(store, registry)
    assert leftovers(tmp_path) == []
    assert registry.count("/blobs/" + IMAGE.layers[0]) == 0


@pytest.mark.parametrize(
    "members", [{"../../../escape": b"x"}, {"ok": b"1", "/../../escape": b"x"}, {".wh..": b""}], ids=repr
)
async def test_hostile_layers(
    store: LocalImageStore, registry: FakeRegistry, tmp_path: Path, members: dict[str, bytes]
) -> None:
    registry.add(make_image([members]))
    with pytest.raises(Invalid, match="the layer cannot be unpacked"):
        await pull(store, registry)
    assert leftovers(tmp_path) == []
    assert not list(tmp_path.rglob("escape"))


async def test_damaged_compression(store: LocalImageStore, registry: FakeRegistry, tmp_path: Path) -> None:
    for kind in ("gzip", "zstd"):
        good = make_image([{"big": BIG}], compression=kind)
        blob = compress(layer_tar({"big": BIG}), kind)
        cut = blob[: len(blob) // 2]
        manifest = json.loads(good.manifest)
        manifest["layers"][0] |= {"digest": digest_of(cut), "size": len(cut)}
        bad = MadeImage(
            {digest_of(cut): cut, good.id: good.config}, json.dumps(manifest).encode(), OCI_MANIFEST, b"", []
        )
        registry.add(bad)
        with pytest.raises(Invalid):
            await pull(store, registry)
    assert leftovers(tmp_path) == []


async def test_a_bomb_stops_at_the_disk(
    store: LocalImageStore, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add(make_image([{"zeros": bytes(64 << 20)}]))
    monkeypatch.setattr(store._parts.layers, "free_bytes", lambda: 32 << 20)
    with pytest.raises((Invalid, Exhausted), match="limit of 33554432 bytes"):
        await pull(store, registry)


# --- failures --------------------------------------------------------------------------------------------------------


async def test_a_broken_download_goes_on_where_it_stopped(store: LocalImageStore, registry: FakeRegistry) -> None:
    registry.add(IMAGE)
    big = IMAGE.layers[1]
    sent: list[str] = []

    async def behave(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith(big):
            return None
        sent.append(request.headers.get("Range", ""))
        if len(sent) <= 3:
            begin = int(sent[-1].removeprefix("bytes=").rstrip("-") or 0)
            answer = ranged(request, IMAGE.blobs[big])
            if begin == 0:
                return await hang_up_after(request, IMAGE.blobs[big], 200_000)
            response = web.StreamResponse(status=206, headers=answer.headers)
            response.headers["Content-Length"] = str(len(IMAGE.blobs[big]) - begin)
            await response.prepare(request)
            await response.write(IMAGE.blobs[big][begin : begin + 200_000])
            assert request.transport is not None
            request.transport.abort()
            return response
        return None

    registry.behave = behave
    await pull(store, registry)
    assert sent[0] == ""
    offsets = [int(header.removeprefix("bytes=").rstrip("-")) for header in sent[1:]]
    assert offsets == sorted(offsets)
    assert offsets[-1] > 300_000


async def test_a_registry_without_ranges(store: LocalImageStore, registry: FakeRegistry) -> None:
    registry.add(IMAGE)
    tries = 0

    async def behave(request: web.Request) -> web.StreamResponse | None:
        nonlocal tries
        if not request.path.endswith(IMAGE.layers[1]):
            return None
        tries += 1
        data = IMAGE.blobs[IMAGE.layers[1]]
        return await hang_up_after(request, data, 300_000) if tries == 1 else web.Response(body=data)

    registry.behave = behave
    await pull(store, registry)
    assert tries == 2


async def test_a_pull_goes_on_after_a_restart(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.add(IMAGE)
    data = IMAGE.blobs[IMAGE.layers[1]]

    async def always_breaks(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith(IMAGE.layers[1]):
            return None
        return web.Response(status=500) if request.headers.get("Range") else await hang_up_after(request, data, 500_000)

    registry.behave = always_breaks
    store = await LocalImageStore.open(tmp_path / "images", backoff_s=0.001)
    with pytest.raises(Unavailable):
        await pull(store, registry)
    await store.close()
    registry.behave = None
    registry.requests.clear()
    store = await LocalImageStore.open(tmp_path / "images", backoff_s=0.001)
    await pull(store, registry)
    await store.close()
    ranges = [headers["Range"] for _, path, headers in registry.requests if path.endswith(IMAGE.layers[1])]
    assert len(ranges) == 1
    assert int(ranges[0].removeprefix("bytes=").rstrip("-")) >= 400_000


async def test_what_an_earlier_try_left_damaged_is_fetched_anew(
    store: LocalImageStore, registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.add(IMAGE)
    partial = tmp_path / "images/ingest" / f"{IMAGE.layers[1].partition(':')[2]}.partial"
    partial.write_bytes(b"rubbish" * 100)
    await pull(store, registry)
    assert not partial.exists()


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_passing_failures_are_tried_again(store: LocalImageStore, registry: FakeRegistry, status: int) -> None:
    registry.add(IMAGE)
    failed: set[str] = set()

    async def behave(request: web.Request) -> web.StreamResponse | None:
        if request.path in failed:
            return None
        failed.add(request.path)
        return web.Response(status=status, headers={"Retry-After": "0"})

    registry.behave = behave
    await pull(store, registry)


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, Unauthenticated), (403, Unauthenticated), (404, NotFound), (429, Unavailable), (500, Unavailable)],
)
async def test_lasting_failures(
    store: LocalImageStore, registry: FakeRegistry, status: int, error: type[EnisleError], tmp_path: Path
) -> None:
    registry.add(IMAGE)
    body = {"errors": [{"code": "SOME_CODE", "message": "because\x1b[31m"}]}

    async def behave(request: web.Request) -> web.StreamResponse | None:
        return web.json_response(body, status=status) if "/blobs/" in request.path else None

    registry.behave = behave
    with pytest.raises(error) as raised:
        await pull(store, registry)
    assert "\x1b" not in str(raised.value)
    assert leftovers(tmp_path) == []


async def test_cancel_frees_at_once(store: LocalImageStore, registry: FakeRegistry, tmp_path: Path) -> None:
    registry.add(IMAGE)
    reached = asyncio.Event()

    async def stall(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith(IMAGE.layers[1]):
            return None
        response = web.StreamResponse(headers={"Content-Length": str(len(BIG))})
        await response.prepare(request)
        await response.write(BIG[:1000])
        reached.set()
        await asyncio.sleep(60)
        return response

    registry.behave = stall
    pulling = asyncio.create_task(pull(store, registry))
    await reached.wait()
    pulling.cancel()
    async with asyncio.timeout(2):
        with pytest.raises(asyncio.CancelledError):
            await pulling
    assert list((tmp_path / "images/staging").iterdir()) == []
    registry.behave = None
    await pull(store, registry)


# --- elsewhere -------------------------------------------------------------------------------------------------------


async def test_redirects_get_no_credentials(store: LocalImageStore, registry: FakeRegistry) -> None:
    registry.add(IMAGE)
    auth = RegistryAuth(username="me", password="secret")
    async with serving(FakeRegistry(blobs=dict(IMAGE.blobs))) as storage:

        async def behave(request: web.Request) -> web.StreamResponse | None:
            if "Authorization" not in request.headers:
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            if "/blobs/" in request.path:
                return web.Response(status=307, headers={"Location": f"http://{storage.host}{request.path}"})
            return None

        registry.behave = behave
        await pull(store, registry, auth=auth)
        assert len(storage.requests) == 3
        assert not [headers for _, _, headers in storage.requests if "Authorization" in headers]


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0/",
        "file:///etc/passwd",
        "http://me:secret@example.com/",
        "ftp://example.com/",
        "//169.254.169.254/x",
        "",
    ],
)
async def test_redirects_that_are_not_followed(store: LocalImageStore, registry: FakeRegistry, location: str) -> None:
    registry.add(IMAGE)

    async def behave(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=302, headers={"Location": location}) if "/blobs/" in request.path else None

    registry.behave = behave
    with pytest.raises((Denied, Unavailable)):
        await pull(store, registry)


async def test_a_token_service_elsewhere_gets_no_password(store: LocalImageStore, registry: FakeRegistry) -> None:
    async def behave(request: web.Request) -> web.StreamResponse | None:
        challenge = 'Bearer realm="http://169.254.169.254/token",service="x"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    registry.behave = behave
    with pytest.raises(Denied, match="token service"):
        await pull(store, registry, auth=RegistryAuth(username="me", password="secret"))


async def test_mirrors_come_first_and_get_no_credentials(tmp_path: Path, registry: FakeRegistry) -> None:
    registry.add(IMAGE)
    async with serving(FakeRegistry()) as mirror:
        mirror.add(make_image([{"from": b"mirror"}]), "mirrored")
        settings = RegistrySettings(mirrors={registry.host: (f"http://{mirror.host}",)})
        store = await LocalImageStore.open(tmp_path / "images", settings, backoff_s=0.001)
        try:
            auth = RegistryAuth(username="me", password="secret")
            await pull(store, registry, "app:mirrored", auth=auth)
            await pull(store, registry, "app:latest", auth=auth)
            await store.distribution(f"{registry.host}/app:mirrored", auth=auth)
            assert registry.count("mirrored") == 0
            assert len(await store.all()) == 2
            assert not [headers for _, _, headers in mirror.requests if "Authorization" in headers]
        finally:
            await store.close()
