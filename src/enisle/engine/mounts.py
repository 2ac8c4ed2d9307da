"""From the mounts a user asked for to those of the record (at create) and those of a launch (at start)."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from enisle.contracts import HostMount
from enisle.engine import propagation
from enisle.engine.slots import Slots
from enisle.engine.volume_storage import read_only
from enisle.engine.volumes import Volumes
from enisle.errors import Invalid, NotFound
from enisle.model.instance import Instance, InstanceSpec, Mount, MountKind, ResolvedMount
from enisle.model.volume import Volume

_TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")
_OPPOSITES = {"exec": "noexec", "suid": "nosuid", "dev": "nodev", "rw": "ro", "atime": "noatime"}
_PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})

Claim = Callable[[str, bool], None]
"""Called with each volume's name before it is relied upon, and whether it was made for this instance alone."""


def gather(spec: InstanceSpec, slots: Slots) -> tuple[Mount, ...]:
    """All mounts: those of --volumes-from, then the user's own, then the image's volumes, one per target.

    Invalid: two of the user's own have the same target, or a path is not absolute.
    """
    found: dict[str, Mount] = {}
    for source in spec.volumes_from:
        for mount in _mounts_of(source, slots):
            found[mount.target] = mount
    own: set[str] = set()
    for mount in spec.mounts:
        target = _target(mount)
        if target in own:
            raise Invalid(f"Duplicate mount point: {target}")
        own.add(target)
        found[target] = replace(mount, target=target)
    for target in spec.volumes:
        if target not in found:
            found[target] = Mount(kind=MountKind.VOLUME, target=target, origin="image", anonymous=True)
    return tuple(found.values())


def _target(mount: Mount) -> str:
    if not mount.target.startswith("/"):
        raise Invalid(f"invalid mount path: '{mount.target}' mount path must be absolute")
    target = posixpath.normpath("/" + mount.target.lstrip("/"))
    if target == "/":
        raise Invalid("invalid mount config: destination can't be '/'")
    return target


def _mounts_of(source: str, slots: Slots) -> list[Mount]:
    """The mounts another instance lends: "id[:ro|rw]"."""
    ref, _, mode = source.partition(":")
    if mode not in ("", "ro", "rw", "z", "Z"):
        raise Invalid(f"invalid mode for volumes-from: {mode}")
    try:
        record = slots.find(ref).record
    except NotFound as error:
        raise Invalid(str(error)) from error  # clients take a NotFound of create for a missing image, and pull it
    asked = {mount.target: mount for mount in record.spec.mounts}
    lent = []
    for mount in record.mounts:
        if mount.kind is MountKind.TMPFS:
            continue
        like = asked.get(mount.target)
        lent.append(
            Mount(
                kind=mount.kind,
                target=mount.target,
                source=mount.name if mount.kind is MountKind.VOLUME else mount.source,
                read_only=mount.read_only or mode == "ro",
                propagation=mount.propagation,
                subpath=like.subpath if like else "",
                no_copy=True,
                origin="from",
                mode_text=mode,
            )
        )
    return lent


async def resolve(
    mounts: tuple[Mount, ...],
    volumes: Volumes,
    claim: Claim,
    find_image: Callable[[str], Awaitable[str]],
    default_driver: str = "",
) -> tuple[tuple[Mount, ...], tuple[ResolvedMount, ...]]:
    """Make or find what each mount needs; the mounts with their sources filled in, and as the record has them."""
    asked, resolved = [], []
    for mount in mounts:
        if mount.kind is MountKind.VOLUME:
            volume = await _volume(mount, volumes, claim, default_driver)
            mount = replace(mount, source=volume.name, anonymous=mount.anonymous or not mount.source)
            mount = replace(mount, read_only=mount.read_only or read_only(volume))
            resolved.append(_resolved(mount, source=volume.mountpoint, name=volume.name, driver=volume.driver))
        elif mount.kind is MountKind.BIND:
            check_bind(mount, create=mount.create_source)
            resolved.append(_resolved(mount, source=mount.source))
        elif mount.kind is MountKind.IMAGE:
            try:
                resolved.append(_resolved(mount, source=await find_image(mount.source)))
            except NotFound as error:
                raise Invalid(f'invalid mount config for type "image": {error}') from error
        else:
            resolved.append(_resolved(mount))
        asked.append(mount)
    return tuple(asked), tuple(resolved)


async def _volume(mount: Mount, volumes: Volumes, claim: Claim, default_driver: str) -> Volume:
    if mount.source:
        claim(mount.source, False)
    volume = await volumes.create(
        mount.source,
        driver=mount.volume_driver or default_driver or "local",
        options=mount.volume_options,
        labels=mount.volume_labels,
    )
    if not mount.source:
        claim(volume.name, True)
    return volume


def _resolved(mount: Mount, *, source: str = "", name: str = "", driver: str = "") -> ResolvedMount:
    return ResolvedMount(
        kind=mount.kind,
        target=mount.target,
        source=source,
        name=name,
        driver=driver,
        read_only=mount.read_only,
        propagation=mount.propagation or ("rprivate" if mount.kind is MountKind.BIND else ""),
        mode_text=mount.mode_text,
        anonymous=mount.anonymous,
    )


def check_bind(mount: Mount, *, create: bool) -> None:
    """Invalid unless the source is there; ``create`` makes a missing directory, as `-v` does."""
    if not mount.source.startswith("/"):
        raise Invalid(
            f'invalid mount config for type "bind": invalid mount path: "{mount.source}" mount path must be absolute'
        )
    if mount.propagation and mount.propagation not in _PROPAGATIONS:
        raise Invalid(f'invalid mount config for type "bind": invalid propagation mode: {mount.propagation}')
    if os.path.lexists(mount.source):
        return
    if not create:
        raise Invalid(f'invalid mount config for type "bind": bind source path does not exist: {mount.source}')
    try:
        os.makedirs(mount.source, mode=0o755, exist_ok=True)
    except OSError as error:
        raise Invalid(f"error while creating mount source path '{mount.source}': {error.strerror}") from error


def volume_names(instance: Instance) -> list[str]:
    """The volumes it mounts, each once."""
    return list(dict.fromkeys(mount.name for mount in instance.mounts if mount.kind is MountKind.VOLUME))


def host_mounts(
    instance: Instance, volumes: Mapping[str, str], layers: Mapping[str, tuple[str, ...]]
) -> tuple[HostMount, ...]:
    """The mounts of one launch, parents before children. Checks again what may have gone since create.

    ``volumes``: where the files of each are, by its name. ``layers``: those of each image that is mounted, by its id.
    """
    asked = {mount.target: mount for mount in instance.spec.mounts}
    ordered = sorted(instance.mounts, key=lambda mount: mount.target.count("/"))
    return tuple(_host_mount(mount, asked[mount.target], volumes, layers) for mount in ordered)


def _host_mount(
    mount: ResolvedMount, asked: Mount, volumes: Mapping[str, str], layers: Mapping[str, tuple[str, ...]]
) -> HostMount:
    if mount.kind is MountKind.TMPFS:
        return HostMount(kind="tmpfs", target=mount.target, options=tmpfs_options(asked))
    if mount.kind is MountKind.VOLUME:
        return _volume_mount(mount, asked, volumes[mount.name])
    if mount.kind is MountKind.IMAGE:
        return HostMount(
            kind="image",
            target=mount.target,
            name=asked.source,
            options=("ro",),
            subpath=asked.subpath,
            layers=layers[mount.source],
        )
    check_bind(asked, create=asked.create_source)
    propagation.check(mount.source, mount.propagation)
    options = ["rbind" if asked.recursive else "bind", mount.propagation or "rprivate"]
    if mount.read_only:
        options.append("ro=top" if asked.read_only_top else "ro")
    return HostMount(kind="bind", target=mount.target, source=mount.source, options=tuple(options))


def _volume_mount(mount: ResolvedMount, asked: Mount, source: str) -> HostMount:
    # Whether what is mounted is empty is seen by who fills it.
    is_new = source != mount.source or _is_empty(source)
    return HostMount(
        kind="volume",
        target=mount.target,
        source=source,
        name=mount.name,
        options=("ro",) if mount.read_only else (),
        copy_up=not asked.no_copy and not asked.subpath and is_new,
        subpath=asked.subpath,
    )


def tmpfs_options(mount: Mount) -> tuple[str, ...]:
    """Docker's defaults (noexec, nosuid, nodev), changed by the user's words, then size and mode."""
    words = dict.fromkeys(_TMPFS_DEFAULTS)
    for word in (*mount.options, *(("ro",) if mount.read_only else ())):
        for positive, negative in _OPPOSITES.items():
            if word in (positive, negative):
                words.pop(positive, None)
                words.pop(negative, None)
        if word not in _OPPOSITES or word == "atime":
            words[word] = None
    if mount.tmpfs_size_bytes:
        words[f"size={mount.tmpfs_size_bytes}"] = None
    if mount.tmpfs_mode is not None:
        words[f"mode={mount.tmpfs_mode:o}"] = None
    return tuple(words)


def _is_empty(path: str) -> bool:
    with os.scandir(path) as entries:
        return next(entries, None) is None
