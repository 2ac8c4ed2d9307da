"""The options of the local driver: dockerd's rules and words. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from enisle.contracts import FileSystem
from enisle.errors import Invalid
from enisle.model.volume import Backing

_KNOWN = frozenset({"type", "o", "device", "size"})
_NEEDED = {"type": ("device",), "device": ("type",), "o": ("type", "device")}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?", re.IGNORECASE | re.ASCII)
_POWERS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_MAXIMUM_BYTES = 1 << 60


def check(options: Mapping[str, str]) -> None:
    """Invalid for options that cannot be."""
    for key in options:
        if key not in _KNOWN:
            raise Invalid(f'invalid option: "{key}"')
    for key, others in _NEEDED.items():
        for other in others:
            if key in options and not options.get(other):
                raise Invalid(f'missing required option: "{other}"')
    for key, value in options.items():
        if "\0" in value or "\n" in value:
            raise Invalid(f'invalid option: "{key}": it holds a control character')
    device = bound_device(options)
    if device and not device.startswith("/"):
        raise Invalid(f"invalid device {device!r} of a bound volume: it must be an absolute path")
    if "size" in options and parse_size(options["size"]) and "type" in options:
        raise Invalid(
            "a size limit is for volumes without a device.", remedy="Give the size as the file system's own: o=size=…"
        )


def parse_size(text: str) -> int:
    """ "1g", "512MiB" and the like in bytes; 0 for no limit. Invalid: it is no size."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise Invalid(f"invalid size: '{text[:80]}'")
    size = int(float(found[1]) * (1 << _POWERS[found[2].lower()]))
    if size > _MAXIMUM_BYTES:
        raise Invalid(f"invalid size: '{text[:80]}' is more than {_MAXIMUM_BYTES >> 50}p")
    return size


def words_of(options: Mapping[str, str]) -> tuple[str, ...]:
    """The mount(8) words of "o"."""
    return tuple(word for word in options.get("o", "").split(",") if word)


def bound_device(options: Mapping[str, str]) -> str:
    """The host directory a volume stands for (``--opt type=none --opt o=bind --opt device=/path``), or ""."""
    return options.get("device", "") if {"bind", "rbind"} & set(words_of(options)) else ""


def backing_of(options: Mapping[str, str], *, quotas: bool) -> Backing:
    """Where the files of such a volume are; ``quotas``: the data root's file system can limit directories."""
    if bound_device(options):
        return Backing.BIND
    if options.get("device"):
        return Backing.MOUNT
    if parse_size(options.get("size") or "0"):
        return Backing.PROJECT if quotas else Backing.IMAGE
    return Backing.DIRECTORY


def filesystem_of(options: Mapping[str, str]) -> FileSystem:
    """What to mount for a volume with a device."""
    return FileSystem(kind=options.get("type", ""), source=options.get("device", ""), options=words_of(options))
