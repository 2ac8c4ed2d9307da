"""What an image archive holds, whichever format: docker-archive (with or without an OCI layout inside), oci-archive."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from enisle.errors import Invalid, NotFound
from enisle.formats.json_document import SIZE_LIMIT_BYTES, parse_object
from enisle.formats.oci import Index, Manifest, check_layer, parse_manifest
from enisle.formats.oci_config import ImageDocument, parse_config
from enisle.formats.reference import Reference, parse_reference
from enisle.images.attestations import about, contents, is_attestation
from enisle.images.content import digest_of
from enisle.images.platforms import choose, host_platform
from enisle.model.ids import Digest
from enisle.model.image import Descriptor

_IMAGES_LIMIT = 200
_NAME_KEYS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class Documents(Protocol):
    """The archive's members by name."""

    def find(self, name: str) -> object | None: ...
    def read(self, name: str) -> bytes: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchivedLayer:
    """A layer's member; ``digest`` and ``media_type`` "" where the archive does not tell."""

    member: str
    digest: str = ""
    media_type: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchivedImage:
    """One image of an archive. ``documents``: its manifest, then the index that lists it; empty for docker-archive.

    ``attached``: members that come along (attestations). ``sibling``: it is another platform of an image of the
    archive, and gets no name.
    """

    config: bytes
    image: ImageDocument
    layers: tuple[ArchivedLayer, ...]
    names: tuple[Reference, ...] = ()
    documents: tuple[bytes, ...] = ()
    attached: tuple[str, ...] = ()
    sibling: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """A manifest of the archive's OCI layout. ``index``: the one that lists it, b"" for none."""

    data: bytes
    manifest: Manifest
    index: bytes = b""
    attached: tuple[str, ...] = ()
    sibling: bool = False

    def image(self, members: Documents, names: tuple[Reference, ...]) -> ArchivedImage:
        config = _verified(members, self.manifest.config)
        return ArchivedImage(
            config=config,
            image=parse_config(config),
            layers=_oci_layers(self.manifest),
            names=() if self.sibling else names,
            documents=self.documents,
            attached=self.attached,
            sibling=self.sibling,
        )

    @property
    def documents(self) -> tuple[bytes, ...]:
        return (self.data, self.index) if self.index else (self.data,)


def plan_archive(members: Documents) -> list[ArchivedImage]:
    """The images of an archive. Invalid for one in neither format.

    Where both formats are inside, the OCI layout tells the exact manifest and Docker's file the names.
    """
    if members.find("manifest.json") is not None:
        return _plan_docker(members)
    if members.find("index.json") is not None and members.find("oci-layout") is not None:
        return _plan_oci(members)
    raise Invalid(
        "the archive holds neither manifest.json nor an OCI layout: it is no image archive.",
        remedy="Use import for a root file system.",
    )


def plan_tops(members: Documents) -> dict[str, Digest]:
    """Which manifest or index each name stands for, as far as the archive says so (those by containerd and us do)."""
    if members.find("index.json") is None:
        return {}
    index = parse_manifest(members.read("index.json"))
    children = index.manifests if isinstance(index, Index) else ()
    found: dict[str, Digest] = {}
    for child in children:
        with suppress(Invalid):  # a name that nobody asked for
            found |= {str(name): child.digest for name in _names(child)}
    return found


def _plan_docker(members: Documents) -> list[ArchivedImage]:
    entries = _entries(members.read("manifest.json"))
    manifests = _manifests_by_config(members)
    images = []
    own = set()
    for entry in entries:
        config = members.read(_text(entry, "Config"))
        image = parse_config(config)
        layers = entry.get("Layers") or []
        if not isinstance(layers, list) or len(layers) != len(image.diff_ids):
            raise Invalid("the image archive's manifest.json does not list as many layers as the config")
        tags = entry.get("RepoTags") or []
        if not isinstance(tags, list):
            raise Invalid("the image archive's manifest.json is malformed: RepoTags is not a list")
        known = manifests.get(digest_of(config))
        own.add(digest_of(config))
        images.append(
            ArchivedImage(
                config=config,
                image=image,
                layers=_oci_layers(known.manifest)
                if known
                else tuple(ArchivedLayer(member=str(one)) for one in layers),
                names=tuple(parse_reference(str(tag)).or_latest() for tag in tags),
                documents=known.documents if known else (),
                attached=known.attached if known else (),
            )
        )
    others = [found for config, found in manifests.items() if found.sibling and config not in own]
    return images + [found.image(members, ()) for found in others]


def _entries(data: bytes) -> list[dict[str, Any]]:
    """The list of manifest.json, read under the same limits as any document."""
    if len(data) > SIZE_LIMIT_BYTES:
        raise Invalid("the image archive's manifest.json is too large")
    entries = parse_object(b'{"images":' + data + b"}", "manifest.json of the image archive")["images"]
    if not isinstance(entries, list) or len(entries) > _IMAGES_LIMIT:
        raise Invalid(f"the image archive's manifest.json is not a list of at most {_IMAGES_LIMIT} images")
    if not all(isinstance(entry, dict) for entry in entries):
        raise Invalid("the image archive's manifest.json is not a list of objects")
    return entries


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise Invalid(f"the image archive's manifest.json is malformed: no {key}")
    return value


def _manifests_by_config(members: Documents) -> dict[Digest, _Found]:
    """The exact manifests, if there is an OCI layout too whose blobs are all there."""
    found: dict[Digest, _Found] = {}
    if members.find("index.json") is None:
        return found
    index = parse_manifest(members.read("index.json"))
    for child in index.manifests if isinstance(index, Index) else ():
        for each in _manifests(members, child):
            if all(members.find(blob_member(layer.digest)) is not None for layer in each.manifest.layers):
                found.setdefault(each.manifest.config.digest, each)
    return found


def _plan_oci(members: Documents) -> list[ArchivedImage]:
    layout = parse_object(members.read("oci-layout"), "oci-layout of the image archive")
    if not str(layout.get("imageLayoutVersion", "")).startswith("1."):
        raise Invalid("the image archive is of a version of the OCI layout that is not known")
    index = parse_manifest(members.read("index.json"))
    if not isinstance(index, Index) or len(index.manifests) > _IMAGES_LIMIT:
        raise Invalid(f"the image archive's index.json is not an index of at most {_IMAGES_LIMIT} images")
    return [found.image(members, _names(child)) for child in index.manifests for found in _manifests(members, child)]


def _manifests(members: Documents, child: Descriptor) -> list[_Found]:
    """The manifests a descriptor means: of an index all that are whole, the one for this machine first."""
    if members.find(blob_member(child.digest)) is None:
        return []
    data = _verified(members, child)
    parsed = parse_manifest(data, child.media_type)
    if isinstance(parsed, Manifest):
        return [_Found(data=data, manifest=parsed)]
    here = {one.digest: found for one in parsed.manifests if (found := _child(members, one, data))}
    here = {name: replace(found, attached=_attached(members, parsed, name)) for name, found in here.items()}
    try:
        first = choose([one for one in parsed.manifests if one.digest in here], host_platform(), "").digest
    except NotFound:
        first = next(iter(here), Digest(""))
    return [
        replace(found, sibling=name != first) for name, found in sorted(here.items(), key=lambda it: it[0] != first)
    ]


def _child(members: Documents, child: Descriptor, index: bytes) -> _Found | None:
    """A manifest that an index lists; None for one that is not whole, or is no image (BuildKit's attestations)."""
    if members.find(blob_member(child.digest)) is None or _is_no_image(child):
        return None
    data = _verified(members, child)
    manifest = parse_manifest(data, child.media_type)
    if not isinstance(manifest, Manifest):
        raise Invalid("the image archive holds an index within an index")
    blobs = [manifest.config, *manifest.layers]
    if not all(members.find(blob_member(blob.digest)) is not None for blob in blobs):
        return None
    return _Found(data=data, manifest=manifest, index=index)


def _is_no_image(child: Descriptor) -> bool:
    return is_attestation(child) or (child.platform is not None and child.platform.os == "unknown")


def _attached(members: Documents, index: Index, manifest: Digest) -> tuple[str, ...]:
    """The members that make up the attestations of an image; none unless all are there."""
    found: list[str] = []
    for entry in about(index.manifests, manifest):
        if members.find(blob_member(entry.digest)) is None:
            return ()
        attestation = parse_manifest(_verified(members, entry), entry.media_type)
        blobs = contents(attestation) if isinstance(attestation, Manifest) else ()
        found += [blob_member(blob.digest) for blob in (entry, *blobs)]
    return tuple(dict.fromkeys(found)) if all(members.find(name) is not None for name in found) else ()


def _verified(members: Documents, descriptor: Descriptor) -> bytes:
    data = members.read(blob_member(descriptor.digest))
    if digest_of(data) != descriptor.digest or len(data) != descriptor.size:
        raise Invalid(f"the image archive is damaged: blob {descriptor.digest} is not what its digest says")
    return data


def blob_member(digest: Digest) -> str:
    """Where an OCI layout has a blob."""
    return "blobs/" + digest.replace(":", "/")


def _oci_layers(manifest: Manifest) -> tuple[ArchivedLayer, ...]:
    for layer in manifest.layers:
        check_layer(layer)
    return tuple(
        ArchivedLayer(member=blob_member(layer.digest), digest=layer.digest, media_type=layer.media_type)
        for layer in manifest.layers
    )


def _names(child: Descriptor) -> tuple[Reference, ...]:
    """The name a descriptor carries. A bare tag, as some tools write, names no repository."""
    for key in _NAME_KEYS:
        text = child.annotations.get(key, "")
        if "/" in text or ":" in text:
            return (parse_reference(text).or_latest(),)
    return ()


def docker_manifest(entries: list[dict[str, Any]]) -> bytes:
    """The manifest.json of an archive."""
    return json.dumps(entries, separators=(",", ":")).encode() + b"\n"
