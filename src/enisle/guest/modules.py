"""Which kernel modules a guest needs, and the order to load them in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from enisle.errors import NotSupported

SETS: dict[str, tuple[str, ...]] = {
    "base": ("virtio_pci", "virtio_console", "virtio_blk", "erofs", "overlay"),
    "net": ("virtio_net",),
    "share": ("virtiofs",),
    "late": ("virtio_balloon",),
}
"""Sets of the agent's ``/modules`` file: loaded at boot, when there is a NIC, when there is a share, when all runs."""

_MODULE = re.compile(r"(?:^|/)lib/modules/[^/]+/kernel/.*/([^/]+)\.ko(?:\.xz|\.zst|\.gz)?$")
_DEPENDS = re.compile(rb"(?:^|\0)depends=([^\0]*)\0")


def name_of(path: str) -> str:
    """The module that a file of a kernel package is, with underscores; "" when it is none."""
    found = _MODULE.search(path)
    return found[1].replace("-", "_") if found else ""


def builtin_names(text: str) -> frozenset[str]:
    """The modules of a kernel's modules.builtin."""
    return frozenset(PurePosixPath(line).stem.replace("-", "_") for line in text.splitlines() if line)


def dependencies(image: bytes) -> list[str]:
    """What a module says it needs, in its .modinfo section."""
    found = _DEPENDS.search(image)
    return [name.decode().replace("-", "_") for name in found[1].split(b",") if name] if found else []


def load_order(wanted: Iterable[str], needs: Mapping[str, list[str]], builtin: frozenset[str]) -> list[str]:
    """``wanted`` and all they need, each after what it needs. ``needs``: of every module there is.

    Raises NotSupported for a module that the kernel has neither as a file nor built in.
    """
    order: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in order or name in builtin or name in above:
            return
        if name not in needs:
            raise NotSupported(f"The guest's kernel lacks the module {name}.")
        for needed in needs[name]:
            visit(needed, (*above, name))
        order.append(name)

    for name in wanted:
        visit(name, ())
    return order


def load_list(needs: Mapping[str, list[str]], builtin: frozenset[str]) -> list[tuple[str, str]]:
    """(set, module) in load order; a module that an earlier base set loads is not repeated."""
    lines: list[tuple[str, str]] = []
    base = load_order(SETS["base"], needs, builtin)
    for name, wanted in SETS.items():
        lines += [
            (name, module) for module in load_order(wanted, needs, builtin) if name == "base" or module not in base
        ]
    return lines


def needed(needs: Mapping[str, list[str]], builtin: frozenset[str]) -> list[str]:
    """Every module of every set."""
    return list(dict.fromkeys(module for _, module in load_list(needs, builtin)))
