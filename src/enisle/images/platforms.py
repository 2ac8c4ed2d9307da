"""Which of an index's manifests is for us."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

from enisle.errors import Invalid, NotFound
from enisle.formats.oci import INDEX_TYPES
from enisle.model.image import Descriptor, Platform

_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
}
_SAME = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm"}
_ARM_VARIANTS = ("v8", "v7", "v6", "v5")


@functools.cache
def host_platform() -> Platform:
    """This machine's platform."""
    machine = os.uname().machine
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform(architecture=architecture, variant=variant)


def parse_platform_text(text: str) -> Platform:
    """``linux/arm64``, ``linux/arm/v7``, ``amd64`` or ``linux``. Invalid for anything else."""
    parts = text.lower().split("/")
    if not all(part.replace("-", "").replace("_", "").isalnum() for part in parts) or len(parts) > 3:
        raise Invalid(f'"{text[:100]}" is an invalid platform: expected os/architecture or os/architecture/variant')
    if len(parts) == 1:
        if parts[0] in ("linux", "windows", "darwin", "freebsd"):
            here = host_platform()
            return Platform(os=parts[0], architecture=here.architecture, variant=here.variant)
        parts = ["linux", parts[0]]
    return Platform(
        os=parts[0], architecture=_SAME.get(parts[1], parts[1]), variant=parts[2] if len(parts) == 3 else ""
    )


def shown(platform: Platform) -> str:
    """os/architecture[/variant]."""
    return "/".join(part for part in (platform.os, platform.architecture, platform.variant) if part)


def _acceptable(wanted: Platform) -> list[tuple[str, str, str]]:
    """What runs where ``wanted`` was asked for, best first. A missing variant means the usual one."""
    os_name, architecture, variant = wanted.os, wanted.architecture, wanted.variant
    if architecture == "arm64":
        return [(os_name, "arm64", variant or "v8"), (os_name, "arm64", "")]
    if architecture == "arm":
        lower = _ARM_VARIANTS[_ARM_VARIANTS.index(variant) :] if variant in _ARM_VARIANTS else ("v7", "v6", "v5")
        return [(os_name, "arm", one) for one in lower] + [(os_name, "arm", "")]
    return [(os_name, architecture, variant)] + ([(os_name, architecture, "")] if variant else [])


def fits(found: Platform, wanted: Platform) -> bool:
    """Whether an image for ``found`` is what ``wanted`` asks for."""
    return (found.os, found.architecture, found.variant) in _acceptable(wanted)


def choose(children: Sequence[Descriptor], wanted: Platform, what: str) -> Descriptor:
    """The manifest for a platform. NotFound in Docker's wording."""
    usable = [child for child in children if child.platform and child.media_type not in INDEX_TYPES]
    for target in _acceptable(wanted):
        for child in usable:
            platform = child.platform
            if platform and (platform.os, platform.architecture, platform.variant) == target:
                return child
    raise NotFound(f"no matching manifest for {shown(wanted)} in the manifest list entries of {what}")
