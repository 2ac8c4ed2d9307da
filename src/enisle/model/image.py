"""Images, layers and references (OCI image spec, distribution spec)."""

from __future__ import annotations

from dataclasses import dataclass, field

from enisle.model.ids import Digest, ImageId
from enisle.model.instance import Healthcheck


@dataclass(frozen=True, kw_only=True, slots=True)
class Platform:
    """An OCI platform, such as linux/amd64 or linux/arm/v7."""

    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Descriptor:
    """What a manifest says of a blob."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageVariant:
    """One manifest that an image's index lists. ``image`` is "" and ``available`` false for one that is not all here.

    ``content_bytes``: what is here of its blobs; ``unpacked_bytes``: its files.
    """

    descriptor: Descriptor
    image: ImageId
    available: bool
    platform: Platform
    content_bytes: int = 0
    unpacked_bytes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryEntry:
    created: str = ""  # RFC 3339
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageConfig:
    """The defaults an image gives its instances (the ``config`` object of an OCI image config)."""

    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    args_escaped: bool = False
    healthcheck: Healthcheck | None = None
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """One image of one platform in our store.

    ``size_bytes`` is the unpacked size of all layers. ``repo_tags`` ("debian:12") and ``repo_digests``
    ("debian@sha256:…") are the names it has now. ``diff_ids`` are bottom first; ``manifest`` is "" for an image made
    here (commit, build, import) that was never pushed or pulled. ``damage`` says why nothing can be made of an image
    whose config is lost: it can be shown and removed, and a pull mends it.
    """

    id: ImageId
    manifest: str = ""
    config: ImageConfig = field(default_factory=ImageConfig)
    platform: Platform = field(default_factory=Platform)
    created: str = ""
    author: str = ""
    comment: str = ""
    parent: str = ""
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    size_bytes: int = 0
    repo_tags: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    last_tagged_at: int = 0
    damage: str = ""
