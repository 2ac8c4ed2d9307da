"""Which capabilities a container's processes have (capabilities(7)), from --cap-add, --cap-drop and --privileged."""

from __future__ import annotations

from collections.abc import Iterable

from enisle.drivers.container.facts import HostFacts
from enisle.errors import Invalid
from enisle.model.instance import InstanceSpec

# Docker's fourteen: images are made with these in mind.
DEFAULT = (
    "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP SETUID "
    "SYS_CHROOT"
).split()
_ALL = "ALL"


def capabilities(spec: InstanceSpec, facts: HostFacts) -> list[str]:
    """Bare names, sorted. Invalid for a name that is none, or none on this kernel, in Docker's words."""
    added = _normalised(spec.cap_add, facts)
    dropped = _normalised(spec.cap_drop, facts)
    if spec.privileged:
        return sorted(facts.capabilities)
    if _ALL in added:
        return sorted(set(facts.capabilities) - dropped)
    if _ALL in dropped:
        return sorted(added)
    return sorted((set(DEFAULT) - dropped) | added)


def _normalised(names: Iterable[str], facts: HostFacts) -> set[str]:
    found = set()
    for name in names:
        bare = name.upper().removeprefix("CAP_")
        if bare != _ALL and bare not in facts.known_capabilities:
            raise Invalid(f'invalid capability: "{name}": unknown capability: "CAP_{bare[:64]}"')
        found.add(bare)
    return found
