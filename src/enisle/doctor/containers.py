"""What stands behind the container wall besides the kernel: OCI runtimes of the settings."""

from __future__ import annotations

import os
from collections.abc import Mapping

from enisle.contracts import HostCapability
from enisle.model.runtime import OciRuntime


def probe(runtimes: Mapping[str, OciRuntime]) -> list[HostCapability]:
    """A line for each; none where none is set."""
    return [runtime(each) for _name, each in sorted(runtimes.items())]


def runtime(found: OciRuntime) -> HostCapability:
    """Whether its program is there. No wall: what does not name it needs it not."""
    ok = os.path.isfile(found.path) and os.access(found.path, os.X_OK)
    return HostCapability(
        name=f"runtime {found.name}",
        ok=ok,
        detail=found.path if ok else f"{found.path} is no program that can be run",
        remedy="" if ok else f"Install it, or correct [runtimes.{found.name}] in the settings.",
    )
