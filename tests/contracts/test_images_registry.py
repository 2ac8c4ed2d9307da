"""Pull and push against the real docker-registry: no authentication, Basic, Bearer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from enisle.contracts import RegistryAuth
from enisle.errors import NotFound, Unauthenticated, Unavailable
from enisle.images.store import LocalImageStore
from enisle.model.image import ImageConfig
from tests.contracts.images_support import (
    Messages,
    TokenServer,
    docker_registry,
    free_port,
    htpasswd_auth,
    layer_tar,
    pieces,
    run,
    serving,
)

AUTH = RegistryAuth(username="me", password="secret")
ROOT = {"bin/": b"", "bin/sh": b"#!" * 5000, "etc/": b"", "etc/hostname": b"x\n"}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalImageStore]:
    opened = await LocalImageStore.open(tmp_path / "images", backoff_s=0.01)
    yield opened
    await opened.close()


async def add(store: LocalImageStore, reference: str) -> str:
    """An image of two layers."""
    base = await store.import_tar(
        pieces(layer_tar(ROOT)), reference="", config=ImageConfig(), message="", platform=None
    )
    return await store.commit(
        base, pieces(layer_tar({"new": b"1" * 100000})), reference=reference, config=ImageConfig(command=("sh",)),
        author="me", message="hello", created_by="sh",
    )  # fmt: skip


async def round_trip(store: LocalImageStore, tmp_path: Path, host: str, auth: RegistryAuth | None) -> None:
    reference = f"{host}/team/app:1"
    image_id = await add(store, reference)
    said = Messages()
    await store.push(reference, auth=auth, progress=said)
    assert said[0] == {"status": f"The push refers to repository [{host}/team/app]"}
    digest = said[-1]["aux"]["Digest"]
    assert said[-2]["status"].startswith(f"1: digest: {digest} size: ")
    assert (await store.get(reference)).repo_digests == (f"{host}/team/app@{digest}",)

    other = await LocalImageStore.open(tmp_path / "other", backoff_s=0.01)
    try:
        said = Messages()
        image = await other.pull(reference, platform=None, auth=auth, progress=said)
        assert image.id == image_id
        assert image.repo_tags == (reference,)
        assert image.repo_digests == (f"{host}/team/app@{digest}",)
        assert said[0] == {"status": "Pulling from team/app", "id": "1"}
        assert said[-2:] == [
            {"status": f"Digest: {digest}"},
            {"status": f"Status: Downloaded newer image for {reference}"},
        ]
        top, bottom = await other.layers(image.id)
        assert (top / "new").read_bytes() == b"1" * 100000
        assert (bottom / "bin/sh").read_bytes() == ROOT["bin/sh"]
        said = Messages()
        await other.pull(reference, platform=None, auth=auth, progress=said)
        assert said[-1] == {"status": f"Status: Image is up to date for {reference}"}
    finally:
        await other.close()


async def test_without_authentication(store: LocalImageStore, tmp_path: Path) -> None:
    async with docker_registry(tmp_path / "registry") as host:
        await round_trip(store, tmp_path, host, None)


async def test_basic(store: LocalImageStore, tmp_path: Path) -> None:
    auth = htpasswd_auth(tmp_path / "registry", "me", "secret")
    async with docker_registry(tmp_path / "registry", auth) as host:
        await round_trip(store, tmp_path, host, AUTH)
        with pytest.raises(Unauthenticated):
            await store.pull(f"{host}/team/app:1", platform=None, auth=None, progress=Messages())
        wrong = RegistryAuth(username="me", password="wrong")
        with pytest.raises(Unauthenticated):
            await store.push(f"{host}/team/app:1", auth=wrong, progress=Messages())


async def test_bearer(store: LocalImageStore, tmp_path: Path) -> None:
    tokens = TokenServer(tmp_path / "tokens", "me", "secret")
    async with serving(tokens), docker_registry(tmp_path / "registry", tokens.auth()) as host:
        await round_trip(store, tmp_path, host, AUTH)
        assert tokens.count("scope=repository:team/app:pull%2Cpush") + tokens.count("pull,push") >= 1
        assert len(tokens.requests) <= 6  # kept, not fetched for each request
        with pytest.raises(Unauthenticated):
            await store.pull(f"{host}/team/app:1", platform=None, auth=None, progress=Messages())


async def test_a_second_push_sends_nothing_and_another_repository_mounts(
    store: LocalImageStore, tmp_path: Path
) -> None:
    async with docker_registry(tmp_path / "registry") as host:
        image = await add(store, f"{host}/one:1")
        await store.push(f"{host}/one:1", auth=None, progress=Messages())
        said = Messages()
        await store.push(f"{host}/one:1", auth=None, progress=said)
        assert sum(m.get("status") == "Layer already exists" for m in said) == 2
        await store.tag(image, f"{host}/two:1")
        said = Messages()
        await store.push(f"{host}/two:1", auth=None, progress=said)
        assert sum(m.get("status") == "Mounted from one" for m in said) == 2


async def test_skopeo_reads_what_was_pushed_and_we_read_what_it_pushes(store: LocalImageStore, tmp_path: Path) -> None:
    async with docker_registry(tmp_path / "registry") as host:
        image = await add(store, f"{host}/app:1")
        await store.push(f"{host}/app:1", auth=None, progress=Messages())
        for form, name in (("oci", "zstd"), ("v2s2", "gzip")):
            await run(
                ["skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false", "-f", form,
                 "--dest-compress-format", name, f"docker://{host}/app:1", f"docker://{host}/copy:{name}"],
            )  # fmt: skip
            pulled = await store.pull(f"{host}/copy:{name}", platform=None, auth=None, progress=Messages())
            assert pulled.diff_ids == (await store.get(image)).diff_ids


async def test_tags(store: LocalImageStore, tmp_path: Path) -> None:
    async with docker_registry(tmp_path / "registry") as host:
        image = await add(store, f"{host}/team/app:1")
        await store.tag(image, f"{host}/team/app:two")
        await store.push(f"{host}/team/app", auth=None, progress=Messages())
        assert sorted(await store.tags(f"{host}/team/app", auth=None)) == ["1", "two"]
        with pytest.raises(NotFound, match=r"repository .*/nope not found"):
            await store.tags(f"{host}/nope", auth=None)


async def test_what_is_not_there(store: LocalImageStore, tmp_path: Path) -> None:
    async with docker_registry(tmp_path / "registry") as host:
        with pytest.raises(NotFound, match=f"manifest for {host}/nope:latest not found: manifest unknown"):
            await store.pull(f"{host}/nope", platform=None, auth=None, progress=Messages())
    with pytest.raises(Unavailable, match="connection refused"):
        await store.pull(f"127.0.0.1:{free_port()}/nope", platform=None, auth=None, progress=Messages())
    with pytest.raises(NotFound, match="An image does not exist locally with the tag: nope"):
        await store.push("nope:1", auth=None, progress=Messages())
