"""What an image archive holds, whichever format: docker-archive (with or without an OCI layout inside), oci-archive."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

from enisle.errors import Invalid
from enisle.formats.json_document import SIZE_LIMIT_BYTES, parse_object
from enisle.formats.oci import Index, Manifest, check_layer, parse_manifest
from enisle.formats.oci_config import ImageDocument, parse_config
from enisle.formats.reference import Reference, parse_reference
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
    """One image of an archive. ``documents``: its manifest and the like, manifest first; empty for docker-archive."""

    config: bytes
    image: ImageDocument
    layers: tuple[ArchivedLayer, ...]
    names: tuple[Reference, ...] = ()
    documents: tuple[bytes, ...] = ()


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


def _plan_docker(members: Documents) -> list[ArchivedImage]:
    entries = _entries(members.read("manifest.json"))
    manifests = _manifests_by_config(members)
    images = []
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
        images.append(
            ArchivedImage(
                config=config,
                image=image,
                layers=_oci_layers(known[1]) if known else tuple(ArchivedLayer(member=str(layer)) for layer in layers),
                names=tuple(parse_reference(str(tag)).or_latest() for tag in tags),
                documents=(known[0],) if known else (),
            )
        )
    return images


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


def _manifests_by_config(members: Documents) -> dict[Digest, tuple[bytes, Manifest]]:
    """The exact manifests, if there is an OCI layout too whose blobs are all there."""
    found: dict[Digest, tuple[bytes, Manifest]] = {}
    if members.find("index.json") is None:
        return found
    index = parse_manifest(members.read("index.json"))
    for child in index.manifests if isinstance(index, Index) else ():
        for data, manifest in _manifests(members, child, depth=0):
            if all(members.find(_blob(layer.digest)) is not None for layer in manifest.layers):
                found[manifest.config.digest] = (data, manifest)
    return found


def _plan_oci(members: Documents) -> list[ArchivedImage]:
    layout = parse_object(members.read("oci-layout"), "oci-layout of the image archive")
    if not str(layout.get("imageLayoutVersion", "")).startswith("1."):
        raise Invalid("the image archive is of a version of the OCI layout that is not known")
    index = parse_manifest(members.read("index.json"))
    if not isinstance(index, Index) or len(index.manifests) > _IMAGES_LIMIT:
        raise Invalid(f"the image archive's index.json is not an index of at most {_IMAGES_LIMIT} images")
    images = []
    for child in index.manifests:
        for data, manifest in _manifests(members, child, depth=0):
            config = _verified(members, manifest.config)
            images.append(
                ArchivedImage(
                    config=config,
                    image=parse_config(config),
                    layers=_oci_layers(manifest),
                    names=_names(child),
                    documents=(data,),
                )
            )
    return images


def _manifests(members: Documents, child: Descriptor, *, depth: int) -> list[tuple[bytes, Manifest]]:
    """The manifest a descriptor means; of an index the one for this machine."""
    if members.find(_blob(child.digest)) is None:
        return []
    data = _verified(members, child)
    parsed = parse_manifest(data, child.media_type)
    if isinstance(parsed, Manifest):
        return [(data, parsed)]
    if depth:
        raise Invalid("the image archive holds an index within an index")
    here = [one for one in parsed.manifests if members.find(_blob(one.digest)) is not None]
    if len(here) > 1:
        here = [choose(here, host_platform(), "the image archive")]
    return [found for one in here for found in _manifests(members, one, depth=1)]


def _verified(members: Documents, descriptor: Descriptor) -> bytes:
    data = members.read(_blob(descriptor.digest))
    if digest_of(data) != descriptor.digest or len(data) != descriptor.size:
        raise Invalid(f"the image archive is damaged: blob {descriptor.digest} is not what its digest says")
    return data


def _blob(digest: Digest) -> str:
    return "blobs/" + digest.replace(":", "/")


def _oci_layers(manifest: Manifest) -> tuple[ArchivedLayer, ...]:
    for layer in manifest.layers:
        check_layer(layer)
    return tuple(
        ArchivedLayer(member=_blob(layer.digest), digest=layer.digest, media_type=layer.media_type)
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
