"""Binds, mounts and tmpfs of a request -> model, with dockerd's checks and words."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from enisle.api.docker import request_types as body
from enisle.errors import Invalid
from enisle.model.ids import check_volume_name
from enisle.model.instance import Mount, MountKind

_PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_LABELS = frozenset({"z", "Z"})  # SELinux relabelling, accepted and without effect
_CONSISTENCIES = frozenset({"consistent", "cached", "delegated", "default"})
_TMPFS_WORDS = frozenset(
    "ro rw suid nosuid dev nodev exec noexec sync async dirsync remount mand nomand atime noatime diratime nodiratime "
    "bind rbind unbindable runbindable private rprivate shared rshared slave rslave relatime norelatime strictatime "
    "nostrictatime mode uid gid nr_inodes nr_blocks size mpol".split()
)


def mounts_of(host: body.HostConfig, volumes: Sequence[str]) -> tuple[Mount, ...]:
    """All mounts that were asked for; ``volumes`` are the targets in Config.Volumes. Raises Invalid."""
    mounts = [bind(text, volume_driver=host.volume_driver) for text in host.binds]
    mounts += [tmpfs(target, options or "") for target, options in host.tmpfs.items()]
    mounts += [mount(wanted) for wanted in host.mounts]
    seen: set[str] = set()
    for wanted in mounts:
        if wanted.target in seen:
            raise Invalid(f"Duplicate mount point: {wanted.target}")
        seen.add(wanted.target)
    for target in volumes:
        _check_target(target, f"invalid volume specification: '{target}'")
    return tuple(mounts)


def bind(text: str, *, volume_driver: str = "") -> Mount:
    """A ``-v`` string: target, source:target or source:target:mode, where a source without slash names a volume."""
    problem = f"invalid volume specification: '{text}'"
    parts = text.split(":")
    if not text or len(parts) > 3 or not all(parts):
        raise Invalid(problem)
    source, target, mode_text = {1: ("", text, ""), 2: (*parts, ""), 3: tuple(parts)}[len(parts)]
    _check_target(target, problem)
    mode = _mode(mode_text)
    is_path = source.startswith("/")
    if source and not is_path:
        check_volume_name(source)
    words = set(mode_text.split(",")) if mode_text else set()
    propagation = next(iter(words & _PROPAGATIONS), "")
    if propagation and not is_path:
        raise Invalid(f"invalid mode: {mode_text}")
    if "nocopy" in words and is_path:
        raise Invalid(f"invalid mode: {mode_text}")
    return Mount(
        kind=MountKind.BIND if is_path else MountKind.VOLUME,
        target=_clean(target),
        source=_clean(source) if is_path else source,
        read_only=mode == "ro",
        propagation=propagation,
        no_copy="nocopy" in words,
        create_source=is_path,
        volume_driver="" if is_path else volume_driver,
        anonymous=not source,
        origin="bind",
        mode_text=mode_text,
    )


def _mode(text: str) -> str:
    """ "ro" or "rw"; each kind of word may come once."""
    if not text:
        return "rw"
    counts = {"access": 0, "propagation": 0, "label": 0, "copy": 0, "consistency": 0}
    for word in text.split(","):
        if word in ("ro", "rw"):
            counts["access"] += 1
        elif word in _PROPAGATIONS:
            counts["propagation"] += 1
        elif word in _LABELS:
            counts["label"] += 1
        elif word == "nocopy":
            counts["copy"] += 1
        elif word in _CONSISTENCIES:
            counts["consistency"] += 1
        else:
            raise Invalid(f"invalid mode: {text}")
    if max(counts.values()) > 1:
        raise Invalid(f"invalid mode: {text}")
    return "ro" if "ro" in text.split(",") else "rw"


def tmpfs(target: str, options: str) -> Mount:
    """A ``--tmpfs`` entry: its options are mount(8) words."""
    _check_target(target, f"invalid tmpfs mount '{target}'")
    words = [word for word in options.split(",") if word]
    for word in words:
        if word.partition("=")[0] not in _TMPFS_WORDS:
            raise Invalid(f"invalid tmpfs option [{word!r}]".replace("'", '"'))
    return Mount(
        kind=MountKind.TMPFS,
        target=_clean(target),
        read_only="ro" in words,
        options=tuple(words),
        origin="tmpfs",
        mode_text=options,
    )


def mount(wanted: body.Mount) -> Mount:
    """An entry of ``Mounts``."""
    problem = f'invalid mount config for type "{wanted.type}"'
    if wanted.type not in ("bind", "volume", "tmpfs", "image"):
        raise Invalid(f"mount type unknown: {wanted.type!r}".replace("'", '"'))
    if not wanted.target:
        raise Invalid(f"{problem}: field Target must not be empty")
    _check_target(wanted.target, problem)
    _check_options(wanted, problem)
    if wanted.type == "bind":
        return _bind_mount(wanted, problem)
    if wanted.type == "tmpfs":
        return _tmpfs_mount(wanted, problem)
    if wanted.type == "image":
        return _image_mount(wanted, problem)
    return _volume_mount(wanted, problem)


def _check_options(wanted: body.Mount, problem: str) -> None:
    given = {
        "bind": wanted.bind_options,
        "volume": wanted.volume_options,
        "tmpfs": wanted.tmpfs_options,
        "image": wanted.image_options,
    }
    for kind, options in given.items():
        if options is not None and kind != wanted.type:
            raise Invalid(f"{problem}: field {kind.capitalize()}Options must not be specified")


def _bind_mount(wanted: body.Mount, problem: str) -> Mount:
    if not wanted.source:
        raise Invalid(f"{problem}: field Source must not be empty")
    if not wanted.source.startswith("/"):
        raise Invalid(f"{problem}: invalid mount path: '{wanted.source}' mount path must be absolute")
    options = wanted.bind_options or body.BindOptions()
    if options.propagation and options.propagation not in _PROPAGATIONS:
        raise Invalid(f"{problem}: invalid propagation mode: {options.propagation}")
    _check_read_only(wanted, options, problem)
    return Mount(
        kind=MountKind.BIND,
        target=_clean(wanted.target),
        source=_clean(wanted.source),
        read_only=wanted.read_only,
        propagation=options.propagation,
        create_source=options.create_mountpoint,
        recursive=not options.non_recursive,
        read_only_top=options.read_only_non_recursive,
        read_only_forced=options.read_only_force_recursive,
        origin="mount",
    )


def _check_read_only(wanted: body.Mount, options: body.BindOptions, problem: str) -> None:
    """dockerd's rules for what is mounted below a read-only bind."""
    if options.read_only_non_recursive and not wanted.read_only:
        raise Invalid(f"{problem}: mount is set with ReadOnlyNonRecursive but ReadOnly is not set")
    if not options.read_only_force_recursive:
        return
    if not wanted.read_only:
        raise Invalid(f"{problem}: mount is set with ReadOnlyForceRecursive but ReadOnly is not set")
    if options.read_only_non_recursive:
        raise Invalid(f"{problem}: ReadOnlyForceRecursive conflicts with ReadOnlyNonRecursive")
    if options.propagation and options.propagation != "rprivate":
        raise Invalid(f"{problem}: ReadOnlyForceRecursive requires Propagation to be rprivate")


def _tmpfs_mount(wanted: body.Mount, problem: str) -> Mount:
    if wanted.source:
        raise Invalid(f"{problem}: field Source must not be specified")
    options = wanted.tmpfs_options or body.TmpfsOptions()
    if options.size_bytes < 0:
        raise Invalid(f"{problem}: size must not be negative")
    return Mount(
        kind=MountKind.TMPFS,
        target=_clean(wanted.target),
        read_only=wanted.read_only,
        tmpfs_size_bytes=options.size_bytes,
        tmpfs_mode=options.mode or None,
        options=tuple("=".join(words) for words in options.options),
        origin="mount",
    )


def _volume_mount(wanted: body.Mount, problem: str) -> Mount:
    options = wanted.volume_options or body.VolumeOptions()
    if wanted.source:
        check_volume_name(wanted.source)
    if options.subpath:
        if not wanted.source:
            raise Invalid(f"{problem}: must not set Subpath when using anonymous volumes")
        _check_subpath(options.subpath, problem)
    driver = options.driver_config or body.DriverConfig()
    return Mount(
        kind=MountKind.VOLUME,
        target=_clean(wanted.target),
        source=wanted.source,
        read_only=wanted.read_only,
        no_copy=options.no_copy,
        subpath=options.subpath,
        volume_driver=driver.name,
        volume_options={key: value or "" for key, value in driver.options.items()},
        volume_labels={key: value or "" for key, value in options.labels.items()},
        anonymous=not wanted.source,
        origin="mount",
    )


def _image_mount(wanted: body.Mount, problem: str) -> Mount:
    if not wanted.source:
        raise Invalid(f"{problem}: field Source must not be empty")
    subpath = wanted.image_options.subpath if wanted.image_options else ""
    if subpath:
        _check_subpath(subpath, problem)
    return Mount(
        kind=MountKind.IMAGE,
        target=_clean(wanted.target),
        source=wanted.source,
        read_only=True,
        subpath=subpath,
        origin="mount",
    )


def _check_subpath(subpath: str, problem: str) -> None:
    """What a subpath finds is decided when it is mounted, and cannot leave the volume; this says so early."""
    if subpath.startswith("/") or ".." in subpath.split("/") or "\0" in subpath:
        raise Invalid(f"{problem}: subpath must be a relative path within the volume")


def _check_target(target: str, problem: str) -> None:
    if "\0" in target:
        raise Invalid(f"{problem}: the path holds a NUL character")
    if not target.startswith("/"):
        raise Invalid(f"{problem}: invalid mount path: '{target}' mount path must be absolute")
    if _clean(target) == "/":
        raise Invalid(f"{problem}: invalid specification: destination can't be '/'")


def _clean(path: str) -> str:
    """Go's filepath.Clean for an absolute path."""
    return "/" + posixpath.normpath(path).lstrip("/")
