"""Images of several platforms: the index stays whole from pull to push, and through archives."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from enisle.errors import NotFound
from enisle.formats.oci import OCI_INDEX
from enisle.formats.reference import parse_reference
from enisle.images.platforms import host_platform
from enisle.images.store import LocalImageStore
from enisle.model.ids import ImageId
from enisle.model.image import Platform
from tests.contracts.images_support import (
    FakeRegistry,
    Messages,
    digest_of,
    docker_registry,
    make_attestation,
    make_image,
    make_index,
    pieces,
    serving,
)

HERE = host_platform()
OTHER = Platform(architecture="s390x" if HERE.architecture != "s390x" else "amd64")
OWN = make_image([{"etc/": b"", "etc/own": b"own"}], architecture=HERE.architecture)
STRANGE = make_image([{"etc/": b"", "etc/other": b"other"}], architecture=OTHER.architecture)
PLATFORMS = {f"linux/{HERE.architecture}": OWN, f"linux/{OTHER.architecture}": STRANGE}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalImageStore]:
    store = await LocalImageStore.open(tmp_path / "store", backoff_s=0.01)
    yield store
    await store.close()


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with serving(FakeRegistry()) as registry:
        yield registry


async def pull(store: LocalImageStore, name: str, *platforms: Platform) -> None:
    for platform in platforms:
        await store.pull(name, platform=platform, auth=None, progress=Messages())


async def test_what_was_pulled_whole_is_pushed_whole(
    store: LocalImageStore, registry: FakeRegistry, tmp_path: Path
) -> None:
    index = registry.add_index(PLATFORMS)
    name = f"{registry.host}/app:latest"
    await pull(store, name, OTHER, HERE)
    async with docker_registry(tmp_path / "registry") as host:
        await store.tag((await store.get(name)).id, f"{host}/app:1")
        said = Messages()
        await store.push(f"{host}/app:1", auth=None, progress=said)
        assert [message["aux"]["Digest"] for message in said if "Digest" in message.get("aux", {})] == [index]
        descriptor, platforms = await store.distribution(f"{host}/app:1", auth=None)
        assert descriptor.digest == index
        assert {platform.architecture for platform in platforms} == {HERE.architecture, OTHER.architecture}
        assert f"{host}/app@{index}" in (await store.get(name)).repo_digests


async def test_one_platform_of_several_is_pushed_with_a_note(
    store: LocalImageStore, registry: FakeRegistry, tmp_path: Path
) -> None:
    index = registry.add_index(PLATFORMS)
    name = f"{registry.host}/app:latest"
    await pull(store, name, HERE)
    async with docker_registry(tmp_path / "registry") as host:
        await store.tag((await store.get(name)).id, f"{host}/app:1")
        said = Messages()
        await store.push(f"{host}/app:1", auth=None, progress=said)
        notes = [message["aux"] for message in said if "originalIndex" in message.get("aux", {})]
        assert [note["originalIndex"]["digest"] for note in notes] == [index]
        assert [note["selectedManifest"]["digest"] for note in notes] == [OWN.digest]
        assert (await store.distribution(f"{host}/app:1", auth=None))[0].digest == OWN.digest


async def test_push_of_one_platform(store: LocalImageStore, registry: FakeRegistry, tmp_path: Path) -> None:
    registry.add_index(PLATFORMS)
    name = f"{registry.host}/app:latest"
    await pull(store, name, OTHER, HERE)
    async with docker_registry(tmp_path / "registry") as host:
        await store.tag((await store.get(name)).id, f"{host}/app:1")
        await store.push(f"{host}/app:1", platform=OTHER, auth=None, progress=Messages())
        assert (await store.distribution(f"{host}/app:1", auth=None))[0].digest == STRANGE.digest
        with pytest.raises(NotFound, match="does not provide the specified platform"):
            nowhere = Platform(architecture="riscv64")
            await store.push(f"{host}/app:1", platform=nowhere, auth=None, progress=Messages())


async def test_a_name_stands_for_what_it_came_as(
    store: LocalImageStore, registry: FakeRegistry, tmp_path: Path
) -> None:
    index = registry.add_index(PLATFORMS)
    name = f"{registry.host}/app:latest"
    await pull(store, name, OTHER, HERE)
    async with docker_registry(tmp_path / "registry") as host:
        names = {f"{host}/app:all": index, f"{host}/app:one": OWN.digest}
        for each in names:
            await store.tag((await store.get(name)).id, each)
        await store.push(f"{host}/app:all", auth=None, progress=Messages())
        await store.push(f"{host}/app:one", platform=HERE, auth=None, progress=Messages())
        await pull(store, f"{host}/app:all", OTHER)
        for each in names:
            await pull(store, each, HERE)
        async with await store.save(list(names)) as stream:
            archive = b"".join([piece async for piece in stream])
        second = await LocalImageStore.open(tmp_path / "second")
        try:
            await second.load(pieces(archive), progress=Messages())
            for each, digest in names.items():
                for pushing in (store, second):
                    await pushing.push(each, auth=None, progress=Messages())
                    assert (await store.distribution(each, auth=None))[0].digest == digest
        finally:
            await second.close()


async def test_variants_tell_what_is_here(store: LocalImageStore, registry: FakeRegistry) -> None:
    registry.add_index(PLATFORMS)
    name = f"{registry.host}/app:latest"
    await pull(store, name, HERE)
    found = {each.descriptor.digest: each for each in await store.variants((await store.get(name)).id)}
    assert found.keys() == {OWN.digest, STRANGE.digest}
    assert found[OWN.digest].available and found[OWN.digest].image == OWN.id and found[OWN.digest].content_bytes
    assert not found[STRANGE.digest].available and not found[STRANGE.digest].content_bytes
    with pytest.raises(NotFound, match="does not provide the specified platform"):
        await store.get(name, OTHER)
    await pull(store, name, OTHER, HERE)
    assert (await store.get(name, OTHER)).id == STRANGE.id
    assert (await store.get(name)).id == OWN.id


async def test_archives_carry_all_platforms(store: LocalImageStore, registry: FakeRegistry, tmp_path: Path) -> None:
    index = registry.add_index(PLATFORMS)
    name = f"{registry.host}/app:latest"
    await pull(store, name, OTHER, HERE)
    async with await store.save([name]) as stream:
        archive = b"".join([piece async for piece in stream])
    second = await LocalImageStore.open(tmp_path / "second")
    try:
        assert await second.load(pieces(archive), progress=Messages()) == [parse_reference(name).familiar]
        assert (await second.get(name)).id == OWN.id
        assert (await second.get(name, OTHER)).id == STRANGE.id
        async with docker_registry(tmp_path / "registry") as host:
            await second.tag((await second.get(name)).id, f"{host}/app:1")
            await second.push(f"{host}/app:1", auth=None, progress=Messages())
            assert (await second.distribution(f"{host}/app:1", auth=None))[0].digest == index
    finally:
        await second.close()


def add_attested(registry: FakeRegistry) -> tuple[str, str]:
    """One platform and what BuildKit says of it, as buildx pushes; the digests of the index and of the attestation."""
    attestation, entry = make_attestation(OWN)
    index = json.loads(make_index({f"linux/{HERE.architecture}": OWN}))
    index["manifests"].append(entry)
    data = json.dumps(index).encode()
    for made in (OWN, attestation):
        registry.add(made, made.digest)
    registry.manifests["latest"] = registry.manifests[digest_of(data)] = (data, OCI_INDEX)
    return digest_of(data), attestation.digest


async def test_attestations_travel_with_their_image(
    store: LocalImageStore, registry: FakeRegistry, tmp_path: Path
) -> None:
    index, attestation = add_attested(registry)
    name = f"{registry.host}/app:latest"
    await pull(store, name, HERE)
    assert len(await store.all()) == 1
    kinds = {each.descriptor.digest: each.available for each in await store.variants(ImageId(OWN.id))}
    assert kinds == {OWN.digest: True, attestation: True}
    async with await store.save([name]) as stream:
        archive = b"".join([piece async for piece in stream])
    second = await LocalImageStore.open(tmp_path / "second")
    try:
        await second.load(pieces(archive), progress=Messages())
        for number, pushing in enumerate((store, second)):
            async with docker_registry(tmp_path / f"registry{number}") as host:
                await pushing.tag((await pushing.get(name)).id, f"{host}/app:1")
                await pushing.push(f"{host}/app:1", auth=None, progress=Messages())
                assert (await store.distribution(f"{host}/app:1", auth=None))[0].digest == index
                assert (await store.distribution(f"{host}/app@{attestation}", auth=None))[0].digest == attestation
        await store.prune(keep=lambda _: True)
        assert all(each.available for each in await store.variants(ImageId(OWN.id)))
        await store.remove(ImageId(OWN.id), prune_parents=True)
        assert list((tmp_path / "store/blobs/sha256").iterdir()) == []
    finally:
        await second.close()


@pytest.mark.parametrize("missing", [0, 1, 2])
async def test_an_image_is_whole_without_its_attestations(
    store: LocalImageStore, registry: FakeRegistry, missing: int
) -> None:
    _, attestation = add_attested(registry)
    made, _ = make_attestation(OWN)
    if missing == 2:
        del registry.manifests[attestation]
    else:
        registry.blobs[list(made.blobs)[missing]] = b"other"
    name = f"{registry.host}/app:latest"
    await pull(store, name, HERE)
    assert (await store.get(name)).id == OWN.id
    assert [each.available for each in await store.variants(ImageId(OWN.id))] == [True, False]
