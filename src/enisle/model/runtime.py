"""OCI runtimes that can be chosen by name, besides our own walls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class OciRuntime:
    """``path`` of its program on this host; ``options`` go before the verb."""

    name: str
    path: str
    options: tuple[str, ...] = ()


SHIM_NAME = "io.containerd.runc.v2"
"""What Docker's clients may call the runtime "runc"."""


def plain_name(name: str) -> str:
    """The name that a setting would have."""
    return "runc" if name == SHIM_NAME else name
